"""Parts of .ci/exports: plants a slower case, and holds what critcmp, NVBench's reader and pandas read against the records.

    check_exports.py plant FOLDER               makes the steadiest layer of a folder twice as slow, prints its name
    check_exports.py critcmp OUTPUT CASE        the case is 2.00 of the other, every other row is alike
    check_exports.py nvbench FILE RESULTS       means by NVBench's own reader are those of the samples
    check_exports.py csv FILE MODEL             pandas' table is the model's
"""
import json
import statistics
import sys


def records(folder):
    return [json.loads(line) for line in open(f"{folder}/measurements.jsonl")]


def plant(folder):
    lines = records(folder)
    layers = [r for r in lines if r["kind"] == "layer" and len(r["samples_ns"]) > 3 and r["median_ns"]]
    case = min(layers, key=lambda r: statistics.stdev(r["samples_ns"]) / statistics.fmean(r["samples_ns"]))
    case["samples_ns"] = [2 * ns for ns in case["samples_ns"]]
    with open(f"{folder}/measurements.jsonl", "w") as out:
        out.writelines(json.dumps(line) + "\n" for line in lines)
    print(case["id"])


def critcmp(output, case):
    lines = open(output).read().splitlines()
    rows = {line.split()[0]: line for line in lines[2:] if line.strip()}
    assert sorted(lines[0].split()[1:]) == ["after", "before"], lines[0]
    assert "2.00" in rows[case] and "1.00" in rows[case], rows[case]
    others = [row for name, row in rows.items() if name != case]
    assert len(others) > 20 and all(row.count("1.00") >= 2 for row in others), "another row changed"
    print(f"exports: critcmp: {len(rows)} cases, {case} at 2.00")


def nvbench(file, folder):
    import cuda.bench.results as results

    # A sample of 0 ns, as of a gate that needed no waiting, has no relative spread: such cases are left out.
    timed = [r["samples_ns"] for r in records(folder) if r["median_ns"] is not None and r["samples_ns"]]
    means = sorted(statistics.fmean(samples) * 1e-9 for samples in timed if min(samples) > 0)
    found = [state.summaries["nv/cold/time/gpu/mean"].value
             for bench in results.BenchmarkResult.from_json(file).values() for state in bench.states]
    assert len(found) == len(means), f"{len(found)} states, {len(means)} cases"
    for ours, theirs in zip(means, sorted(found)):
        assert abs(theirs / ours - 1) < 1e-9, (ours, theirs)
    print(f"exports: NVBench: {len(found)} states with the means of their samples")


def csv(file, model):
    import pandas

    table, model = pandas.read_csv(file, float_precision="round_trip"), json.load(open(model))
    assert table.median_ns.dtype == "float64" and len(table) > 20
    layers = table[table.part == "layer"]
    assert len(layers) == 3 * len(model["layer"])
    forward = layers[layers.phase == "forward"].median_ns.tolist()
    assert forward == [layer["forward_ns"]["median"] for layer in model["layer"]], "other times"
    pairs = table[table.part == "corun"]
    assert pairs.slowdown.tolist() == [pair["slowdown"]["median"] for pair in model["interference"]["pairs"]], "other pairs"
    assert layers.ranks.isna().all() and (table[table.part == "collective"].ranks >= 2).all()
    print(f"exports: pandas: {len(table)} rows")


globals()[sys.argv[1]](*sys.argv[2:])
