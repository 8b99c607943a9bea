"""How long the program takes from its start to its end where it has next to nothing to do: what a script that calls it often
pays a call.

    python3 benches/startup.py [PROGRAM]            default target/release/bubblebench

Each command is run RUNS times, in turn with the others and with `true`, so that what disturbs the machine meets all of them.
Printed are milliseconds: the shortest run, the median, and the median of the processor time, which other programs change least.
"""
import os
import statistics
import subprocess
import sys
import time

RUNS = 100
program = sys.argv[1] if len(sys.argv) > 1 else "target/release/bubblebench"
model = "results/published/amd-epyc-2c/cost_model.json"
layer = "layer --hidden 640 --heads 10 --sequence 256 --micro-batch 2"
commands = {
    "true": ["true"],
    "--version": [program, "--version"],
    "--help": [program, "--help"],
    "schema measurement": [program, "schema", "measurement"],
    "predict layer": [program, "predict", "--cost-model", model, *layer.split()],
}


def run(command):
    """Wall and processor time of one run, in milliseconds."""
    begun = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    wall = time.perf_counter() - begun
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        sys.exit(f"{command} ended with {process.returncode}")
    return wall * 1e3, (usage.ru_utime + usage.ru_stime) * 1e3


times = {name: [] for name in commands}
for _ in range(RUNS):
    for name, command in commands.items():
        times[name].append(run(command))
print(f"{'':20}{'shortest':>10}{'median':>10}{'processor':>10}")
for name, runs in times.items():
    wall = [one for one, _ in runs]
    processor = statistics.median(two for _, two in runs)
    print(f"{name:20}{min(wall):10.2f}{statistics.median(wall):10.2f}{processor:10.2f}")
