import json
import shutil

import pytest
import torch
from conftest import FAMILIES
from safetensors import safe_open
from safetensors.torch import load_file
from transformers import AttentionInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward

from aha import model as model_module
from aha.config import DataConfig
from aha.engine.native import NativeEngine
from aha.engine.sampling import Sampling
from aha.model import (
    align,
    check_scoring,
    collate,
    compute_dtype,
    load_policy,
    longest,
    microbatches,
    prompt_beside,
    round_parameters,
    save_policy,
    stop_token_ids,
    switch_dropout_off,
    token_logps,
)
from aha.rollout import load_prompts
from aha.stage_configs import EvalStage
from aha.texts import check_packing
from aha.training import load_weights
from aha.types import UserError

ROWS = [([5, 6], [7]), ([5], [8, 9]), ([4, 4, 4], [5, 6, 7, 8])]


def stage(model: str, **changes) -> EvalStage:
    return EvalStage(name="e", kind="eval", model=str(model), eval={"data": [{"source": "countdown"}]}, **changes)


def test_collate_pads_on_the_right_and_marks_the_completion():
    batch = collate(ROWS[:2], pad_id=0, device=torch.device("cpu"))
    assert batch.input_ids_BT.tolist() == [[5, 6, 7], [5, 8, 9]]
    assert batch.mask_BT.tolist() == [[False, False, True], [False, True, True]]


@pytest.mark.parametrize(("has_amx", "dtype"), [(True, torch.bfloat16), (False, torch.float32)])
def test_on_a_cpu_bfloat16_is_chosen_where_there_is_amx(monkeypatch, has_amx, dtype):
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: has_amx)
    assert compute_dtype("auto", torch.device("cpu")) == dtype
    assert compute_dtype("bfloat16", torch.device("cpu")) == torch.bfloat16


def test_align_spreads_values_over_the_completion():
    batch = collate(ROWS[:2], pad_id=0, device=torch.device("cpu"))
    assert align([[0.5], [1.0, 2.0]], batch).tolist() == [[0.0, 0.0, 0.5], [0.0, 1.0, 2.0]]


def test_microbatches_keep_every_sequence_within_the_budget():
    lengths = [3, 9, 1, 4, 4, 8, 2]
    batches = microbatches(lengths, max_tokens=10)
    assert sorted(i for batch in batches for i in batch) == list(range(7))
    assert batches == [[1], [5], [3, 4], [0, 6, 2]]
    assert all(max(lengths[i] for i in batch) * len(batch) <= 10 for batch in batches)


def test_a_sequence_longer_than_the_budget_stands_alone():
    assert microbatches([50, 60], max_tokens=10) == [[1], [0]]


@pytest.mark.parametrize("family", FAMILIES)
def test_token_logps_equal_those_of_each_sequence_alone(make_family, family):
    model = make_family(family).model
    logp_BT = token_logps(model, collate(ROWS, 0, model.device), temperature=0.7, dtype=torch.float32)
    for (context, scored), logp_T in zip(ROWS, logp_BT, strict=True):
        logits = model(torch.tensor([context + scored])).logits[0] / 0.7
        expected = torch.stack([logits[len(context) + i - 1].log_softmax(-1)[token] for i, token in enumerate(scored)])
        torch.testing.assert_close(logp_T[len(context) : len(context) + len(scored)], expected, atol=1e-5, rtol=0)


def test_scoring_in_chunks_changes_neither_logps_nor_gradient(policy, monkeypatch):
    def gradient() -> tuple[torch.Tensor, torch.Tensor]:
        policy.model.zero_grad()
        logps = token_logps(policy.model, collate(ROWS, 0, policy.device), 1.0, torch.float32)
        logps.sum().backward()
        return logps.detach(), policy.model.get_input_embeddings().weight.grad.clone()

    whole = gradient()
    monkeypatch.setattr(model_module, "CHUNK_ELEMENTS", 2 * policy.model.config.vocab_size)  # two tokens at a time
    chunked = gradient()
    torch.testing.assert_close(chunked, whole, atol=1e-5, rtol=1e-4)


def test_a_saved_model_is_a_plain_folder_that_speaks_as_it_was_trained(policy, tmp_path):
    save_policy(policy, tmp_path, torch.bfloat16)
    files = {file.name for file in tmp_path.iterdir()}
    assert {"config.json", "generation_config.json", "model.safetensors", "tokenizer.json", "prompt.json"} <= files
    loaded = load_policy(stage(tmp_path), torch.device("cpu"))
    assert loaded.prompt == policy.prompt
    assert loaded.stop_ids == policy.stop_ids
    for saved, trained in zip(loaded.model.parameters(), policy.model.parameters(), strict=True):
        assert torch.equal(saved, trained.to(torch.bfloat16).float())


def test_prompt_settings_of_a_stage_win_over_saved_ones(model_folder):
    loaded = load_policy(stage(model_folder, prompt={"template": "plain"}), torch.device("cpu"))
    assert loaded.prompt.template == "plain"


def test_stop_ids_are_the_end_of_text_and_the_end_of_turn(policy):
    vocabulary = policy.tokenizer.get_vocab()
    assert stop_token_ids(policy.model, policy.tokenizer) == {vocabulary["<|endoftext|>"], vocabulary["<|im_end|>"]}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_tied_head_is_saved_once(policy, tmp_path, dtype):
    save_policy(policy, tmp_path, dtype)
    with safe_open(tmp_path / "model.safetensors", "pt") as file:
        assert "lm_head.weight" not in file.keys()  # noqa: SIM118
        assert file.get_tensor("model.embed_tokens.weight").dtype == dtype
    loaded = load_policy(stage(tmp_path), torch.device("cpu")).model
    assert loaded.lm_head.weight.data_ptr() == loaded.model.embed_tokens.weight.data_ptr()


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_is_saved_and_loaded_with_its_head_tied_or_not(make_family, tmp_path, family):
    policy = make_family(family)
    save_policy(policy, tmp_path, torch.float32)
    loaded = load_policy(stage(tmp_path), torch.device("cpu"))
    ids = torch.tensor([[5, 6, 7]])
    assert torch.equal(loaded.model(ids).logits, policy.model(ids).logits)
    is_tied = loaded.model.lm_head.weight.data_ptr() == loaded.model.get_input_embeddings().weight.data_ptr()
    assert is_tied == policy.model.config.tie_word_embeddings


@pytest.mark.parametrize("family", [*FAMILIES, "qwen3_moe", "gpt_neox"])
def test_saved_weights_are_loaded_into_the_same_model(make_family, tmp_path, family):
    policy = make_family(family)
    save_policy(policy, tmp_path, torch.float32)
    before = {name: tensor.clone() for name, tensor in policy.model.state_dict().items()}
    with torch.no_grad():
        for parameter in policy.model.parameters():
            parameter.add_(1)
    load_weights(policy.model, tmp_path)
    assert all(torch.equal(tensor, before[name]) for name, tensor in policy.model.state_dict().items())


@pytest.mark.parametrize(("family", "size"), [("llama", 48), ("qwen3", 64)])
def test_weights_of_another_class_or_shape_are_refused(make_family, tmp_path, family, size):
    save_policy(make_family(family, intermediate_size=size), tmp_path, torch.float32)
    with pytest.raises(ValueError, match="weights do not fit the model"):
        load_weights(make_family("qwen3").model, tmp_path)


def test_settings_of_sampling_that_transformers_refuses_to_save_stop_no_training(model_folder, tmp_path):
    shutil.copytree(model_folder, tmp_path / "old")
    (tmp_path / "old" / "generation_config.json").write_text(json.dumps({"eos_token_id": 0, "temperature": 0.9, "top_p": 0.6}))
    policy = load_policy(stage(tmp_path / "old"), torch.device("cpu"))
    save_policy(policy, tmp_path / "new", torch.float32)
    saved = json.loads((tmp_path / "new" / "generation_config.json").read_text())
    assert saved["eos_token_id"] == sorted(policy.stop_ids)
    assert (saved["temperature"], saved["top_p"]) == (0.9, 0.6)


def test_prompt_settings_travel_with_a_model_of_the_hub(model_folder, tmp_path, monkeypatch):
    folder = tmp_path / "models--me--zero"
    (folder / "refs").mkdir(parents=True)
    (folder / "refs" / "main").write_text("abc")
    shutil.copytree(model_folder, folder / "snapshots" / "abc")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("transformers.utils.hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    settings = prompt_beside("me/zero", None)
    assert settings == load_policy(stage(model_folder), torch.device("cpu")).prompt
    assert settings.prefill == "<think>"
    (folder / "snapshots" / "abc" / "prompt.json").unlink()
    assert prompt_beside("me/zero", None) is None
    assert prompt_beside("me/other", None) is None


@pytest.mark.parametrize("family", ["opt", "seed_oss", "gpt2", "gpt_neox"])
def test_dropout_is_off_in_whatever_module_and_under_whatever_name(make_family, family):
    policy = make_family(family)
    for config in (policy.model, *policy.model.modules()):
        for name, value in vars(config).items():
            if "drop" in name and isinstance(value, float):
                setattr(config, name, 0.5)
        if isinstance(config, torch.nn.Dropout):
            config.p = 0.5
    policy.model.train()
    batch = collate(ROWS, 0, policy.device)
    assert not torch.equal(*(token_logps(policy.model, batch, 1.0, torch.float32) for _ in range(2)))
    switch_dropout_off(policy.model)
    assert torch.equal(*(token_logps(policy.model, batch, 1.0, torch.float32) for _ in range(2)))


def test_with_longrope_a_text_is_no_longer_than_where_the_frequencies_change(make_family):
    policy = make_family("phi3", max_position_embeddings=64)
    assert longest(policy.model) == 16
    engine = NativeEngine(policy.model, frozenset(), torch.float32)
    engine.generate([[5, 6, 7]], 1, Sampling("s", 13))
    with pytest.raises(UserError, match="make 17 tokens; the model holds 16 \\(of 64: beyond it LongRoPE"):
        engine.generate([[5, 6, 7]], 1, Sampling("s", 14))


def test_a_tokenizer_that_pads_on_the_left_or_not_at_all_changes_nothing(model_folder, tmp_path):
    shutil.copytree(model_folder, tmp_path / "left")
    path = tmp_path / "left" / "tokenizer_config.json"
    settings = json.loads(path.read_text())
    path.write_text(json.dumps({**{k: v for k, v in settings.items() if k != "pad_token"}, "padding_side": "left"}))
    before, left = (load_policy(stage(folder), torch.device("cpu")) for folder in (model_folder, tmp_path / "left"))
    assert left.tokenizer.padding_side == "left"
    assert left.tokenizer.pad_token == left.tokenizer.eos_token
    data = [DataConfig(source="countdown", limit=4)]
    one, other = (load_prompts(data, policy)[0] for policy in (before, left))
    assert one == other


@pytest.mark.parametrize("name", ["./nowhere", "/no/such/model", "a/b/c"])
def test_a_path_that_is_no_model_is_a_user_error(name):
    with pytest.raises(UserError, match="is no model"):
        load_policy(stage(name), torch.device("cpu"))


def test_a_folder_without_config_is_a_user_error(tmp_path):
    with pytest.raises(UserError, match=r"no config\.json"):
        load_policy(stage(tmp_path), torch.device("cpu"))


def test_a_folder_without_weights_is_a_user_error(model_folder, tmp_path):
    for name in ("config.json", "tokenizer.json", "tokenizer_config.json"):
        (tmp_path / name).write_bytes((model_folder / name).read_bytes())
    with pytest.raises(UserError, match="is no model"):
        load_policy(stage(tmp_path), torch.device("cpu"))


def test_a_copy_in_bfloat16_and_rounding_leave_the_rotary_frequencies_exact(policy):
    exact = policy.model.model.rotary_emb.inv_freq.clone()
    assert not torch.equal(exact, exact.bfloat16().float())
    engine = NativeEngine(policy.model, policy.stop_ids, torch.bfloat16)
    assert torch.equal(engine.model.model.rotary_emb.inv_freq, exact)
    round_parameters(policy.model, torch.bfloat16)
    assert torch.equal(policy.model.model.rotary_emb.inv_freq, exact)
    weight = policy.model.lm_head.weight
    assert torch.equal(weight, weight.bfloat16().float())


def test_what_is_no_parameter_is_saved_as_it_is(make_family, tmp_path):
    policy = make_family("deepseek_v3")
    name, bias = next((name, b) for name, b in policy.model.named_buffers() if "e_score_correction_bias" in name)
    bias.copy_(torch.linspace(0.001, 1, bias.numel()))
    save_policy(policy, tmp_path, torch.bfloat16)
    assert torch.equal(load_file(tmp_path / "model.safetensors")[name], bias)


def test_training_checks_run_in_the_dtype_of_training(policy):
    """Flash attention takes no float32."""
    seen = []

    def attention(module, query, *args, **kwargs):
        seen.append(torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else query.dtype)
        return sdpa_attention_forward(module, query, *args, **kwargs)

    AttentionInterface.register("aha_test", attention)
    policy.model.set_attn_implementation("aha_test")
    check_scoring(policy, torch.bfloat16)
    check_packing(policy, torch.bfloat16)
    assert set(seen) == {torch.bfloat16}


def test_a_class_that_scales_its_logits_is_refused_for_training(make_family):
    check_scoring(make_family("gemma2"), torch.float32)
    cohere = make_family("llama")
    cohere.model.forward = scaled(cohere.model.forward, 0.1)
    with pytest.raises(UserError, match="models of class llama scale their logits"):
        check_scoring(cohere, torch.float32)


def scaled(forward, scale: float):
    """The forward pass of a model that multiplies its logits, as Cohere's and Granite's do."""

    def run(*args, **kwargs):
        output = forward(*args, **kwargs)
        output.logits = output.logits * scale
        return output

    return run
