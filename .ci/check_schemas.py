"""Holds the committed files of today's versions (tests/data/schemas) against the schemas that the program prints."""
import json
import pathlib
import re
import subprocess
import sys

import jsonschema

program = sys.argv[1]
followed = 0
for file in sorted(pathlib.Path("tests/data/schemas").glob("*.json*")):
    kind, version = re.fullmatch(r"(\w+)-(\d+)\.jsonl?", file.name).groups()
    schema = json.loads(subprocess.run([program, "schema", kind], check=True, capture_output=True, text=True).stdout)
    if schema["title"] != f"bubblebench.{kind}/{version}":
        continue
    text = file.read_text(encoding="utf-8")
    values = [json.loads(part) for part in (text.splitlines() if file.suffix == ".jsonl" else [text])]
    validator = jsonschema.Draft202012Validator(schema)
    for error in (error for value in values for error in validator.iter_errors(value)):
        sys.exit(f"{file}: {error.message} at {list(error.absolute_path)}")
    followed += 1
if followed < 11:
    sys.exit(f"only {followed} files of today's versions in tests/data/schemas")
print(f"{followed} committed files of today's versions follow their schemas")
