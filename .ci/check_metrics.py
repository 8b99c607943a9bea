"""Asks a Prometheus that scrapes two runs, on the host and on a GPU, for every series of docs/monitoring.md and every
expression of docs/monitoring/grafana.json, and has promtool read both pages. Arguments: Prometheus' URL, both addresses."""

import json
import re
import subprocess
import sys
import time
import urllib.error
import urllib.parse
import urllib.request

prometheus, host, cuda = sys.argv[1:]
# Its own server answers on this machine, whatever proxy there is.
opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
# What DCGM-exporter named before promtool had an opinion.
LINTED = re.compile(r"^DCGM_FI_\w+ label names should be written in 'snake_case' not 'camelCase'$")
SECONDS = 45


def get(url: str, accept: str = "*/*") -> str:
    request = urllib.request.Request(url, headers={"Accept": accept})
    with opener.open(request, timeout=5) as answer:
        return answer.read().decode()


def query(expression: str) -> list:
    answer = json.loads(get(f"{prometheus}/api/v1/query?" + urllib.parse.urlencode({"query": expression})))
    assert answer["status"] == "success", (expression, answer)
    return answer["data"]["result"]


def lint(address: str) -> None:
    page = get(f"http://{address}/metrics")
    told = subprocess.run(["promtool", "check", "metrics"], input=page, text=True, capture_output=True)
    lines = (told.stdout + told.stderr).splitlines()
    others = [line for line in lines if not LINTED.match(line)]
    assert not others and told.returncode in (0, 3), f"promtool on {address}: {others} ({told.returncode})"


def dashboard() -> list[str]:
    with open("docs/monitoring/grafana.json", encoding="utf-8") as file:
        board = json.load(file)
    assert board["__inputs"][0]["name"] == "DS_PROMETHEUS"
    texts = [target["expr"] for panel in board["panels"] for target in panel.get("targets", [])]
    assert len(texts) > 25, len(texts)
    return [text.replace("$instance", ".*").replace("$__rate_interval", "10s") for text in texts]


def listed() -> list[str]:
    """The series of the tables of docs/monitoring.md; a summary has two."""
    with open("docs/monitoring.md", encoding="utf-8") as file:
        rows = re.findall(r"^\| `(\w+)` \| (\w+) \|", file.read(), re.M)
    assert len(rows) > 30, rows
    return [name + ending for name, kind in rows for ending in (("_sum", "_count") if kind == "summary" else ("",))]


def wanted() -> dict[str, str]:
    """What must have been seen, each as an expression over the last minutes: series that are gone count as well."""
    series = {name: f"last_over_time({name}[5m])" for name in listed()}
    selector = re.compile(r"(\w+\{[^}]*\})(?!\[)")
    boards = {text: selector.sub(r"last_over_time(\1[5m])", text) for text in dashboard()}
    # The host's gate is at work from its first case on; the filled stage comes last, too late to be waited for.
    moved = ("bubblebench_gate_openings_total", "bubblebench_gate_side_operations_total", "bubblebench_samples_total")
    moves = {f"{name} > 0": f"last_over_time({name}[5m]) > 0" for name in moved}
    return {**series, **boards, **moves}


def main() -> None:
    for address in (host, cuda):
        lint(address)
    for text in dashboard():
        query(text)
    left, end = wanted(), time.monotonic() + SECONDS
    while left and time.monotonic() < end:
        # A scrape that failed would leave out what it did not read.
        left = {name: text for name, text in left.items() if not query(text)}
        time.sleep(0.5)
    assert not left, f"no data: {sorted(left)}"
    targets = json.loads(get(f"{prometheus}/api/v1/targets"))["data"]["activeTargets"]
    assert len(targets) == 2, targets
    for address in (host, cuda):
        assert query(f'max_over_time(up{{instance="{address}"}}[5m]) == 1'), f"{address} was never scraped"
    steps = query('increase(bubblebench_case_visits_total[5m])')
    print(f"metrics: Prometheus has {len(listed())} series, answers {len(dashboard())} expressions; "
          f"visits since its first scrapes: {sorted(round(float(step['value'][1])) for step in steps)}")


def patiently() -> None:
    """Prometheus takes a moment to start."""
    for _ in range(100):
        try:
            get(f"{prometheus}/-/ready")
            return
        except (urllib.error.URLError, ConnectionError):
            time.sleep(0.1)
    raise SystemExit("metrics: Prometheus does not start")


patiently()
main()
