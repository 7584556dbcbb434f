"""What the Python example's copy holds: one JSON object, number of the unit -> its state."""

import json
import sqlite3
import sys

units = sqlite3.connect(sys.argv[1], timeout=30).execute("SELECT orgnr, state FROM unit").fetchall()
print(json.dumps({number: json.loads(state) for number, state in units}))
