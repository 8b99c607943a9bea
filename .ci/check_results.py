"""Holds a run's files against the schemas the program prints, and its cases against what the preset promises."""
import json
import subprocess
import sys

import jsonschema

program, folder = sys.argv[1:]


def validator(kind):
    text = subprocess.run([program, "schema", kind], check=True, capture_output=True, text=True).stdout
    return jsonschema.Draft202012Validator(json.loads(text))


def check(kind, value, place):
    errors = list(validators[kind].iter_errors(value))
    if errors:
        sys.exit(f"{place}: {errors[0].message} at {list(errors[0].absolute_path)}")


validators = {kind: validator(kind) for kind in ("measurement", "machine", "cost_model")}
lines = [json.loads(line) for line in open(f"{folder}/measurements.jsonl")]
for number, line in enumerate(lines, 1):
    check("measurement", line, f"measurements.jsonl:{number}")
check("machine", json.load(open(f"{folder}/machine.json")), "machine.json")
model = json.load(open(f"{folder}/cost_model.json"))
check("cost_model", model, "cost_model.json")

cases = [line for line in lines if line["kind"] != "end"]
on_gpu = cases[0]["backend"] == "cuda"
for kind in ("operation", "layer", "collective", "corun") + (() if on_gpu else ("fill",)):
    if not any(case["kind"] == kind and case["median_ns"] for case in cases):
        sys.exit(f"no {kind} case has a time")
wrong = [case["id"] for case in cases if case["verified"] and case["verified"]["wrong"]]
if on_gpu and any("software" not in case["flags"] for case in cases if case["device"] == "softgpu"):
    sys.exit("a case of the software device does not say so")
operations = ("all_reduce", "all_gather", "reduce_scatter", "broadcast", "reduce", "all_to_all", "send_recv/ring", "pipeline")
if on_gpu and not all(any(case["id"].startswith(f"nccl/{name}/r4/") for case in cases) for name in operations):
    sys.exit("an operation between the four GPUs is missing")
if on_gpu and not any(case["kind"] == "corun" and "+all_reduce-" in case["id"] for case in cases):
    sys.exit("no product ran beside an all-reduce")
if wrong or lines[-1]["kind"] != "end" or not model["accuracy"]:
    sys.exit(f"wrong results {wrong}, or the run was not closed, or the cost model has no accuracy")
print(f"{len(cases)} cases follow their schemas; accuracy: " + ", ".join(f"{a['what']} {a['mape_percent']:.1f}%" for a in model["accuracy"]))
