"""Fails where a kernel spills registers, or an architecture was not built."""
import json
import sys

kernels = json.load(open(sys.argv[1]))["kernels"]
architectures = {kernel["arch"] for kernel in kernels}
missing = {"sm_80", "sm_86", "sm_90a"} - architectures
spills = [f"{k['name']} on {k['arch']}: {k['spill_bytes']} bytes" for k in kernels if k["spill_bytes"]]
print(f"{len(kernels)} kernels × architectures in {sorted(architectures)}; spills: {spills or 'none'}")
if missing or spills or not kernels:
    sys.exit(f"not built for {sorted(missing)}, or spills above")
