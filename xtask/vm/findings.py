"""Reads what `doctor --json` has printed.

findings.py remedy ID FILE    what to type about the one complaint of this kind; fails if there is none
findings.py evidence ID FILE  and what was seen
findings.py none ID FILE      fails if there is one
"""
import json
import sys

what, kind, file = sys.argv[1:]
with open(file, encoding="utf-8") as report:
    findings = [finding for finding in json.load(report)["findings"] if finding["id"] == kind]
complaints = [finding for finding in findings if finding["severity"] != "ok"]
if what == "none":
    sys.exit(bool(complaints))
remedies = {complaint["remedy"] for complaint in complaints}
if len(remedies) != 1:
    sys.exit(f"{kind}: {complaints}")
print(complaints[0][what])
