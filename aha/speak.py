"""Talk to a model: one question, one answer."""

from aha.chat import decode, encode_prompts, render
from aha.engine.native import NativeEngine
from aha.engine.sampling import Sampling
from aha.log import printable
from aha.model import compute_dtype, default_device, load_policy, told_longest
from aha.stage_configs import StageConfig


class Speaker:
    """A loaded model that answers questions in the way it was trained to be asked."""

    def __init__(self, cfg: StageConfig, max_completion_length: int, temperature: float, seed: int):
        device = default_device()
        self.name, self.seed = cfg.model, seed
        self.dtype = compute_dtype(cfg.dtype, device)
        self.policy = load_policy(cfg, device, self.dtype)
        self.engine = NativeEngine(self.policy.model, self.policy.stop_ids, self.dtype)
        self.max_tokens, self.temperature = max_completion_length, temperature
        self.asked = 0

    def header(self) -> str:
        """What was loaded: parameters, vocabulary, maximum length, pad and stop ids, dtype, device."""
        model, tokenizer = self.policy.model, self.policy.tokenizer
        return (
            f"{self.name}: {model.num_parameters() / 1e6:.1f}M parameters, vocabulary {len(tokenizer)}, "
            f"maximum length {told_longest(model)}\n"
            f"pad id {tokenizer.pad_token_id}, stop ids {sorted(self.policy.stop_ids)}, "
            f"{str(self.dtype).removeprefix('torch.')} on {self.policy.device}, prompt template {self.policy.prompt.template}"
        )

    def answer(self, question: str) -> str:
        """One answer, with the prefilled start; control characters are made visible."""
        text = render(question, self.policy.prompt, self.policy.tokenizer)
        [ids] = encode_prompts([text], self.policy.prompt, self.policy.tokenizer)
        sampling = Sampling(f"{self.seed}/chat/{self.asked}", self.max_tokens, self.temperature)
        self.asked += 1
        [[sample]] = self.engine.generate([ids], 1, sampling)
        text = decode(sample.token_ids, self.policy.tokenizer, self.policy.stop_ids)
        return printable(self.policy.prompt.prefill + text)
