"""What it brings to ask a judge about completions that are finished while the engine decodes the others.

The bundled model answers Countdown problems; a stub on this machine marks every answer after a pause. The same
generations are drawn with and without asking ahead, by turns, and must be paid the same.

.venv/bin/python benchmarks/ahead.py [--problems 32] [--pause 0.05] [--repeats 5]
"""

import argparse
import json
import os
import statistics
import threading
import time
from datetime import date
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import torch

from aha import rollout
from aha.config import RewardConfig, validate
from aha.engine.native import NativeEngine
from aha.engine.sampling import Sampling
from aha.model import default_device, load_policy
from aha.rewards import Reward, begins_ahead, load_rewards
from aha.stage_configs import EvalStage

MESSAGE = {"role": "assistant", "content": "Score: 7"}
BODY = json.dumps({"id": "1", "object": "chat.completion", "created": 0, "model": "stub",
                   "choices": [{"index": 0, "message": MESSAGE, "finish_reason": "stop"}]}).encode()  # fmt: skip


class Judge(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    pause = 0.0  # seconds before it answers

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        time.sleep(self.pause)
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(BODY)))
        self.end_headers()
        self.wfile.write(BODY)

    def log_message(self, *_: object) -> None:
        pass


def never(reward: Reward) -> bool:
    return False


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--problems", type=int, default=32, help="with 8 completions each")
    parser.add_argument("--pause", type=float, default=0.05, help="seconds that the judge takes")
    parser.add_argument("--repeats", type=int, default=5)
    args = parser.parse_args()
    Judge.pause = args.pause
    server = ThreadingHTTPServer(("127.0.0.1", 0), Judge)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    data = [{"source": "countdown", "split": "train", "limit": args.problems}]
    cfg: EvalStage = validate(EvalStage, {"name": "ahead", "kind": "eval", "model": "tiny-base", "eval": {"data": data}}, "")
    policy = load_policy(cfg, default_device(), torch.float32)
    prompts, _ = rollout.load_prompts(cfg.eval.data, policy)
    engine = NativeEngine(policy.model, policy.stop_ids, torch.float32, cfg.max_num_seqs)

    def seconds(seed: str, is_ahead: bool) -> tuple[float, list[float | None]]:
        rollout.begins_ahead = begins_ahead if is_ahead else never
        url = f"http://127.0.0.1:{server.server_port}/v1"
        judge = RewardConfig(name="judge", args={"url": url, "model": f"{seed}/{is_ahead}"})  # a judge who knows nothing yet
        started = time.perf_counter()
        groups = rollout.rollout(engine, policy, prompts, 8, Sampling(seed, 200), load_rewards([judge]))
        return time.perf_counter() - started, [c.reward for group in groups for c in group.completions]

    seconds("warm", True)
    ratios = []
    for repeat in range(args.repeats):
        taken = {is_ahead: seconds(str(repeat), is_ahead) for is_ahead in ((False, True) if repeat % 2 else (True, False))}
        assert taken[True][1] == taken[False][1]
        ratios.append(taken[False][0] / taken[True][0])
    print(
        f"{date.today()}, {os.cpu_count()} processors, load {os.getloadavg()[0]:.1f}, {8 * args.problems} completions, "
        f"{args.pause} s: {statistics.median(ratios):.2f} times as fast ({min(ratios):.2f} to {max(ratios):.2f})"
    )


if __name__ == "__main__":
    main()
