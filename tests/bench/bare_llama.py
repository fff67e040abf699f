"""A bare llama.cpp server: no part of helexa, to be measured beside it.

Usage: bare_llama.py MODEL.gguf; prints a ready line with its URL, serves until killed.
"""

from __future__ import annotations

import json
import sys
import time
from urllib.parse import urlsplit

import xllamacpp

params = xllamacpp.CommonParams()
params.model.path = sys.argv[1]
params.hostnames = ["127.0.0.1"]
params.port = 0
params.model_alias = ["spark"]
params.n_ctx = 2048
params.cpuparams.n_threads = 1
params.cache_ram_mib = 0
server = xllamacpp.Server(params)
port = urlsplit(server.listening_address).port
print(json.dumps({"ready": True, "url": f"http://127.0.0.1:{port}"}), flush=True)
while True:
    time.sleep(60)
