import gc
import weakref

import pytest
import torch
from conftest import FAMILIES

from aha.engine import native
from aha.engine.native import NativeEngine
from aha.engine.rows import WIDTH_BLOCK, RowCache, RowLayer
from aha.engine.sampling import MASS, Sampling, _keep_top, _nucleus, draw, invert, uniform
from aha.model import collate, token_logps
from aha.types import Sample, UserError

PROMPTS = [[5, 6, 7], [9], [11, 12, 13, 14, 15, 16, 17, 18], [44, 33]]
LONG = [list(range(5, 16)), *PROMPTS]  # with a prompt longer than the windows of the toy families


def reference_logps(model, prompt: list[int], sample: Sample, temperature: float = 1.0) -> torch.Tensor:
    logits = model(torch.tensor([prompt + sample.token_ids])).logits[0, len(prompt) - 1 : -1]
    return (logits / temperature).log_softmax(-1).gather(-1, torch.tensor(sample.token_ids)[:, None])[:, 0]


def greedy_by_forward(model, prompt: list[int], num_tokens: int) -> list[int]:
    ids = list(prompt)
    for _ in range(num_tokens):
        ids.append(int(model(torch.tensor([ids])).logits[0, -1].argmax()))
    return ids[len(prompt) :]


def engine_of(policy, max_num_seqs: int = 64, stop_ids: frozenset[int] = frozenset()) -> NativeEngine:
    return NativeEngine(policy.model, stop_ids, torch.float32, max_num_seqs)


@pytest.mark.parametrize("family", FAMILIES)
@torch.no_grad()
def test_greedy_tokens_equal_those_of_model_forward(make_family, family):
    policy = make_family(family)
    groups = engine_of(policy).generate(LONG, 1, Sampling("s", 12, temperature=0))
    for prompt, [sample] in zip(LONG, groups, strict=True):
        assert sample.token_ids == greedy_by_forward(policy.model, prompt, 12)


@pytest.mark.parametrize("temperature", [1.0, 0.6])
@pytest.mark.parametrize("family", FAMILIES)
@torch.no_grad()
def test_logps_equal_those_of_model_forward(make_family, family, temperature):
    policy = make_family(family)
    groups = engine_of(policy, max_num_seqs=5).generate(LONG, 3, Sampling("s", 20, temperature))
    for prompt, group in zip(LONG, groups, strict=True):
        for sample in group:
            expected = reference_logps(policy.model, prompt, sample, temperature)
            torch.testing.assert_close(torch.tensor(sample.logps), expected, atol=1e-5 / temperature, rtol=0)


@torch.no_grad()
def test_logps_equal_those_of_model_forward_when_the_cache_has_grown(policy):
    groups = engine_of(policy, max_num_seqs=3).generate(LONG, 2, Sampling("s", 3 * WIDTH_BLOCK))
    for prompt, group in zip(LONG, groups, strict=True):
        for sample in group:
            expected = reference_logps(policy.model, prompt, sample)
            torch.testing.assert_close(torch.tensor(sample.logps), expected, atol=1e-5, rtol=0)


@torch.no_grad()
def test_the_cache_grows_with_the_rows_that_still_decode(policy, monkeypatch):
    sizes = []
    grow = RowLayer._grown

    def seen(layer, states):
        grown = grow(layer, states)
        sizes.append(len(grown))
        return grown

    monkeypatch.setattr(RowLayer, "_grown", seen)
    stops = frozenset(range(0, policy.model.config.vocab_size, 40))  # about one token in forty
    groups = engine_of(policy, stop_ids=stops).generate(PROMPTS, 4, Sampling("s", 4 * WIDTH_BLOCK))
    assert sizes[-1] < sizes[0] <= 4 * len(PROMPTS)
    for prompt, group in zip(PROMPTS, groups, strict=True):
        for sample in group:
            expected = reference_logps(policy.model, prompt, sample)
            torch.testing.assert_close(torch.tensor(sample.logps), expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("temperature", [1.0, 0.6])
@pytest.mark.parametrize("family", FAMILIES)
@torch.no_grad()
def test_the_trainer_scores_tokens_as_the_engine_drew_them(make_family, family, temperature):
    policy = make_family(family)
    groups = engine_of(policy).generate(LONG, 2, Sampling("s", 12, temperature))
    rows = [(prompt, sample.token_ids) for prompt, group in zip(LONG, groups, strict=True) for sample in group]
    batch = collate(rows, 0, policy.device)
    logp_BT = token_logps(policy.model, batch, temperature, torch.float32)
    drawn = torch.tensor([logp for group in groups for sample in group for logp in sample.logps])
    torch.testing.assert_close(logp_BT[batch.mask_BT], drawn, atol=1e-5 / temperature, rtol=0)


@pytest.mark.parametrize("family", ["mistral", "gemma2", "gemma3_text"])
def test_the_toy_windows_bite(make_family, family):
    """Else the tests above would not see an engine that ignores them."""
    short, long = (make_family(family, sliding_window=window) for window in (6, 64))
    [[one], *_], [[other], *_] = (engine_of(policy).generate(LONG, 1, Sampling("s", 12)) for policy in (short, long))
    assert max(abs(a - b) for a, b in zip(one.logps, other.logps, strict=True)) > 0.01


def test_attention_of_another_kind_is_refused(make_family):
    policy = make_family("qwen2")
    policy.model.config.layer_types = ["full_attention", "chunked_attention"]
    with pytest.raises(UserError, match="knows full and sliding attention; this model has chunked_attention"):
        engine_of(policy)


@pytest.mark.parametrize("max_num_seqs", [1, 3, 7, 12])
def test_tokens_do_not_depend_on_how_many_rows_decode_at_once(policy, max_num_seqs):
    alone = engine_of(policy).generate(PROMPTS, 3, Sampling("s", 15))
    crowded = engine_of(policy, max_num_seqs).generate(PROMPTS, 3, Sampling("s", 15))
    assert [[s.token_ids for s in group] for group in crowded] == [[s.token_ids for s in group] for group in alone]


def test_tokens_do_not_depend_on_what_else_is_in_the_batch(policy):
    ids = ["a", "b", "c", "d"]
    together = engine_of(policy).generate(PROMPTS, 2, Sampling("s", 15), ids)
    [single] = engine_of(policy).generate([PROMPTS[2]], 2, Sampling("s", 15), ["c"])
    assert [s.token_ids for s in single] == [s.token_ids for s in together[2]]


def test_samples_of_a_group_differ_and_a_seed_repeats_them(policy):
    [first] = engine_of(policy).generate([PROMPTS[0]], 4, Sampling("s", 10))
    [again] = engine_of(policy).generate([PROMPTS[0]], 4, Sampling("s", 10))
    [other] = engine_of(policy).generate([PROMPTS[0]], 4, Sampling("t", 10))
    assert first == again
    assert first != other
    assert len({tuple(s.token_ids) for s in first}) == 4


@pytest.mark.parametrize("family", ["gptj", "bloom"])
def test_a_class_that_does_not_take_the_cache_or_the_attention_is_refused_at_once(make_family, family):
    with pytest.raises(UserError, match=f"class {family}"):
        engine_of(make_family(family))


@pytest.mark.parametrize("family", ["opt", "gpt_neox", "qwen3_moe"])
def test_a_class_that_takes_both_is_not(make_family, family):
    engine_of(make_family(family))


@pytest.mark.parametrize("seed", range(8))
def test_experts_that_rounding_changes_are_no_reason_to_refuse(make_family, seed):
    policy = make_family("deepseek_v3")
    torch.manual_seed(seed)
    with torch.no_grad():
        for parameter in policy.model.parameters():
            parameter.normal_(0, 0.3)
    NativeEngine(policy.model, frozenset(), torch.bfloat16)


def test_the_cache_is_freed_with_the_last_sample(policy, monkeypatch):
    caches = []
    make = RowCache.__init__
    monkeypatch.setattr(RowCache, "__init__", lambda self, *args: make(self, *args) or caches.append(weakref.ref(self)))
    gc.disable()
    try:
        engine_of(policy).generate(PROMPTS, 2, Sampling("s", 6))
        assert caches
        assert not any(cache() for cache in caches)
    finally:
        gc.enable()


@pytest.mark.parametrize("max_num_seqs", [2, 3, 5, 64])
def test_a_prompt_is_prefilled_once_per_group(policy, max_num_seqs, monkeypatch):
    decoders = []
    run = native._Decoder.run
    monkeypatch.setattr(native._Decoder, "run", lambda self, rows: decoders.append(self) or run(self, rows))
    engine_of(policy, max_num_seqs).generate(PROMPTS, 3, Sampling("s", 6))
    assert decoders[-1].prefilled_prompts == len(PROMPTS)


@pytest.mark.parametrize("max_num_seqs", [5, 64])
def test_prompts_that_exceed_the_budget_of_a_prefill_are_run_in_parts(policy, max_num_seqs, monkeypatch):
    engine = engine_of(policy, max_num_seqs)
    whole = engine.generate(PROMPTS, 3, Sampling("s", 6))
    shapes = []
    forward = policy.model.base_model.forward

    def noted(input_ids, **kwargs):
        shapes.append(input_ids.shape)
        return forward(input_ids, **kwargs)

    monkeypatch.setattr(policy.model.base_model, "forward", noted)
    monkeypatch.setattr(native, "PREFILL_TOKENS", max(map(len, PROMPTS)))
    parts = engine.generate(PROMPTS, 3, Sampling("s", 6))
    assert [[s.token_ids for s in group] for group in parts] == [[s.token_ids for s in group] for group in whole]
    assert max(rows * width for rows, width in shapes if width > 1) < max(map(len, PROMPTS))


@torch.no_grad()
def test_every_stop_id_ends_a_sample_and_is_kept_in_it(policy):
    first, second = (greedy_by_forward(policy.model, PROMPTS[i], 1)[0] for i in (0, 2))
    engine = engine_of(policy, stop_ids=frozenset({first, second}))
    groups = engine.generate([PROMPTS[0], PROMPTS[2]], 1, Sampling("s", 8, temperature=0))
    assert [group[0].token_ids for group in groups] == [[first], [second]]
    assert all(group[0].finish_reason == "stop" for group in groups)


def test_without_a_stop_id_a_sample_ends_at_the_maximum_length(policy):
    [[sample]] = engine_of(policy).generate([PROMPTS[0]], 1, Sampling("s", 5))
    assert len(sample.token_ids) == len(sample.logps) == 5
    assert sample.finish_reason == "length"


def test_rows_that_finish_at_different_times_leave_the_others_untouched(policy):
    vocabulary = policy.model.config.vocab_size
    stops = frozenset(range(0, vocabulary, 6))  # each token stops with probability near 1/6
    sampling = Sampling("s", 30)
    alone = [engine_of(policy, 1, stops).generate([p], 6, sampling, [str(i)])[0] for i, p in enumerate(PROMPTS)]
    crowded = engine_of(policy, 8, stops).generate(PROMPTS, 6, sampling, ["0", "1", "2", "3"])
    assert len({len(s.token_ids) for group in crowded for s in group}) > 3
    assert [[s.token_ids for s in g] for g in crowded] == [[s.token_ids for s in g] for g in alone]


def test_bfloat16_copy_follows_the_trained_weights(policy):
    engine = NativeEngine(policy.model, frozenset(), torch.bfloat16)
    assert not engine.is_exact
    with torch.no_grad():
        policy.model.get_output_embeddings().weight.mul_(-3)
    stale = engine.generate([PROMPTS[0]], 1, Sampling("s", 8, temperature=0))
    engine.refresh()
    fresh = engine.generate([PROMPTS[0]], 1, Sampling("s", 8, temperature=0))
    assert stale != fresh
    for copied, trained in zip(engine.model.parameters(), policy.model.parameters(), strict=True):
        assert torch.equal(copied, trained.to(torch.bfloat16))


def test_generation_leaves_mode_and_attention_of_the_model_as_they_were(policy):
    policy.model.train()
    before = policy.model.config._attn_implementation
    engine_of(policy).generate(PROMPTS, 1, Sampling("s", 2))
    assert policy.model.training
    assert policy.model.config._attn_implementation == before


def drawn_share(logits: list[float], sampling: Sampling) -> torch.Tensor:
    """How often each token is drawn over evenly spread random numbers."""
    points = (torch.arange(10_000).double() + 0.5) / 10_000
    tokens, _ = draw(torch.tensor(logits).expand(10_000, -1), sampling, points)
    return torch.bincount(tokens, minlength=len(logits)) / 10_000


LOGITS = torch.tensor([0.5, 0.3, 0.15, 0.05]).log().tolist()


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, [0.5, 0.3, 0.15, 0.05]),
        ({"temperature": 0.5}, [0.6849, 0.2466, 0.0616, 0.0068]),  # squares, normalised
        ({"top_k": 2}, [0.625, 0.375, 0, 0]),
        ({"top_p": 0.7}, [0.625, 0.375, 0, 0]),
        ({"top_p": 0.5}, [1, 0, 0, 0]),
        ({"min_p": 0.2}, [0.5263, 0.3158, 0.1579, 0]),
        ({"top_k": 3, "top_p": 0.9}, [0.5263, 0.3158, 0.1579, 0]),
        ({"temperature": 0}, [1, 0, 0, 0]),
    ],
)
def test_draw_follows_the_filtered_distribution(settings, expected):
    torch.testing.assert_close(
        drawn_share(LOGITS, Sampling("s", 1, **settings)), torch.tensor(expected).float(), atol=2e-4, rtol=0
    )


@pytest.mark.parametrize("size", [1, 63, 64, 65, 1000])
def test_inverting_by_blocks_equals_cumulating_the_whole_vocabulary(size):
    generator = torch.Generator().manual_seed(size)
    probs = (3 * torch.randn(500, size, generator=generator)).softmax(-1)
    probs[::2, ::3] = 0  # as top-k leaves them
    probs[:, -1] += 1e-3
    points = torch.rand(500, generator=generator, dtype=torch.float64)
    whole = (probs.double() * MASS).long().cumsum(-1)
    expected = torch.searchsorted(whole, (points[:, None] * whole[:, -1:]).long(), right=True)[:, 0]
    assert torch.equal(invert(probs, points), expected)


@pytest.mark.parametrize("scale", [0.1, 1.0, 8.0])  # nuclei of most tokens, of hundreds, of a few
@pytest.mark.parametrize("top_p", [0.3, 0.95])
def test_the_nucleus_is_that_of_the_sorted_vocabulary_whatever_else_is_in_the_batch(scale, top_p):
    probs = (scale * torch.randn(20, 3000, generator=torch.Generator().manual_seed(7))).softmax(-1)
    kept = _nucleus(probs, top_p)
    for row, found in zip(probs, kept, strict=True):
        order = row.argsort(descending=True)
        before = row[order].double().cumsum(0) - row[order]
        size = int((before < top_p * row.double().sum()).sum())
        assert set(found.nonzero()[:, 0].tolist()) == set(order[:size].tolist())
        assert torch.equal(_nucleus(row[None], top_p)[0], found)


def test_of_equals_top_k_keeps_k():
    kept = _keep_top(torch.full((2, 1000), 1e-3), 10, 1.0)
    assert (kept > 0).sum(dim=-1).tolist() == [10, 10]


def test_equals_at_the_border_of_the_nucleus_all_stay():
    kept = _nucleus(torch.tensor([[0.4, 0.2, 0.2, 0.1, 0.1]]), 0.5)
    assert kept[0].nonzero()[:, 0].tolist() == [0, 1, 2]


def test_logp_is_of_the_distribution_before_top_k():
    _, logp = draw(torch.tensor([LOGITS]), Sampling("s", 1, top_k=1), torch.tensor([0.9], dtype=torch.float64))
    assert logp.item() == pytest.approx(torch.tensor(0.5).log().item())


def test_random_numbers_are_uniform_and_differ_between_keys_and_counters():
    counters = torch.arange(100_000)
    values = uniform(torch.full((100_000,), -5), counters)
    assert values.min() >= 0
    assert values.max() < 1
    counts = torch.histc(values.float(), bins=10, min=0, max=1)
    assert (counts - 10_000).abs().max() < 400
    assert len(torch.unique(values)) == 100_000
    assert not torch.isclose(uniform(torch.tensor([1]), torch.tensor([0])), uniform(torch.tensor([2]), torch.tensor([0])))


def test_every_sample_is_told_once_when_it_is_finished_while_others_still_decode(policy):
    told: list[tuple[int, Sample]] = []
    engine = engine_of(policy, max_num_seqs=2, stop_ids=frozenset(range(0, 1500, 9)))
    groups = engine.generate(PROMPTS, 3, Sampling("s", 12), on_sample=lambda place, sample: told.append((place, sample)))
    assert groups == engine.generate(PROMPTS, 3, Sampling("s", 12))
    in_order = [(place, sample) for place, group in enumerate(groups) for sample in group]
    assert sorted(told, key=str) == sorted(in_order, key=str)
    assert told != in_order  # as they finish: those that stop early first
