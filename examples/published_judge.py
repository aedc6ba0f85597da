"""Asks a published judge at an endpoint that answers from a script, without a model; needs `reward_hub[judge]`."""

import json
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

from reward_hub import AutoRM


class Endpoint(BaseHTTPRequestHandler):
    def do_POST(self):
        self.rfile.read(int(self.headers["content-length"]))
        message = {"role": "assistant", "content": "Right, but without a reason. [RESULT] 3"}
        choice = {"index": 0, "message": message, "finish_reason": "stop"}
        body = json.dumps(
            {"id": "1", "object": "chat.completion", "created": 0, "model": "m", "choices": [choice]}
        ).encode()
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *arguments):
        pass


with HTTPServer(("127.0.0.1", 0), Endpoint) as server:
    threading.Thread(target=server.serve_forever, daemon=True).start()
    address = f"http://127.0.0.1:{server.server_port}/v1"
    with AutoRM.load("prometheus-eval/prometheus-7b-v2.0", api_base=address) as rm:
        score, details = rm.score(prompt="What is 2+2?", response="4", return_details=True)
        print(score, details["normalized_score"], details["reasoning"])
    server.shutdown()
