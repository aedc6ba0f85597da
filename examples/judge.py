"""A judge scores and compares; needs reward_hub[judge], and `ADDRESS MODEL` or else a stand-in that counts words."""

import json
import re
import sys
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

from reward_hub import LLMJudge


class StandIn(BaseHTTPRequestHandler):
    def do_POST(self):
        asked = json.loads(self.rfile.read(int(self.headers["content-length"])))["messages"][0]["content"]
        words = [len(text.split()) for text in re.findall(r"<<<RESPONSE.*?>>>\n(.*?)\n<<<END", asked, re.DOTALL)]
        scores = {"Correctness": min(5, words[0]), "Clarity": 4}
        verdict = {"scores": scores} if len(words) == 1 else {"winner": "A" if words[0] > words[1] else "B"}
        content = json.dumps({"reasoning": f"I count {words} words.", **verdict})
        usage = {"prompt_tokens": len(asked) // 4, "completion_tokens": len(content) // 4}
        choice = {"message": {"content": content}, "finish_reason": "stop"}
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.end_headers()
        self.wfile.write(json.dumps({"choices": [choice], "usage": usage}).encode())

    def log_message(self, *args): ...


server = HTTPServer(("127.0.0.1", 0), StandIn)
threading.Thread(target=server.serve_forever, daemon=True).start()
address, model = sys.argv[1:] if len(sys.argv) == 3 else (f"http://127.0.0.1:{server.server_port}/v1", "stand-in")
rubric = "Score the response from 1-5 based on:\n- Correctness (weight: 0.7)\n- Clarity (weight: 0.3)"
with LLMJudge(model, api_base=address, rubric=rubric, prices=(0.5, 1.5)) as judge:
    score, details = judge.score(prompt="Why is the sky blue?", response="Air scatters blue.", return_details=True)
    print(f"{score:.2f}", details["attributes"], details["reasoning"], judge.usage.cost)
with LLMJudge(model, api_base=address, rubric="Which response explains more?", mode="pairwise") as judge:
    print(judge.compare(prompt="Why is the sky blue?", a="Air scatters blue light.", b="Because."), judge.position_bias)
