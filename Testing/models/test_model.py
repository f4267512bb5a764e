"""A model: what it promises of one lesion and of many, and what it refuses to judge."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("radiomics")

from radllm_backend import Features, Model, RadllmError
from radllm_backend.features.table import read_table
from radllm_backend.language.prompt import Readout
from radllm_backend.models.shipped import shipped_models
from Testing.support.command_line import succeed

pytestmark = pytest.mark.usefixtures("lean")


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RADLLM_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="module")
def model(cache, tiny_model, tiny_base):
    """Its head is the adapter's own."""
    return Model.load(tiny_model, tiny_base)


@pytest.fixture(scope="module")
def fused(cache, lean, phantom_table, tiny_base, tmp_path_factory):
    """Its head reads the hidden states together with the features."""
    folder = tmp_path_factory.mktemp("fused") / "model"
    succeed(
        "train", phantom_table, "--target", "label", "--group", "patient", "--base-model", tiny_base, "-o", folder,
        "--method", "fusion", "--features", "3", "--folds", "0", "--scale-free",
    )  # fmt: skip
    return Model.load(folder, tiny_base)


@pytest.fixture(scope="module")
def rows(phantom_table):
    return read_table(phantom_table).rows()


# --- what it promises -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("explain", [True, False])
@pytest.mark.parametrize("head", ["model", "fused"])
def test_one_lesion_and_many_get_the_same_prediction(request, rows, head, explain):
    own = request.getfixturevalue(head)
    assert (own.card.head is None) == (head == "model")
    alone = own.predict(rows[2], explain=explain)
    assert alone == own.predict_many([rows[2]], explain=explain)[0]
    assert alone == own.predict_many(rows[:4], explain=explain)[2]
    assert (alone.additive is not None) == explain


@pytest.mark.parametrize("head", ["model", "fused"])
def test_a_prediction_comes_with_its_reasons_unless_they_are_not_wanted(request, rows, head):
    own = request.getfixturevalue(head)
    explained = own.predict(rows[0], explain=True)
    assert own.predict(rows[0]) == own.predict_many(rows[:1])[0] == explained
    assert explained.neighbours
    assert explained.counterfactuals
    assert all(share.effect is not None for share in explained.features)
    plain = own.predict(rows[0], explain=False)
    assert (plain.neighbours, plain.counterfactuals, plain.additive) == ([], [], None)
    assert all(share.effect is None for share in plain.features)


def test_no_lesions_are_no_predictions(model, fused):
    assert model.predict_many([]) == fused.predict_many([]) == []


def test_progress_is_told_while_lesions_are_read_and_can_end_the_call(model, rows):
    told = []
    model.predict_many(rows, explain=False, progress=lambda what, done: told.append((what, done)))
    shares = [done for _, done in told]
    assert shares == sorted(shares)
    assert told[-1] == ("Reading prompts", 1.0)

    def stop(what: str, done: float) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        model.predict_many(rows, explain=False, progress=stop)


def test_a_reloaded_model_embeds_and_predicts_the_same(cache, phantom_table, tiny_model, tiny_base):
    lesions = read_table(phantom_table).rows()[:3]
    first, again = (Model.load(tiny_model, tiny_base) for _ in range(2))
    assert first.predict_many(lesions, explain=False) == again.predict_many(lesions, explain=False)
    assert first.embed(lesions).shape == (3, 32)
    assert np.array_equal(first.embed(lesions), again.embed(lesions))


def test_variants_are_scored_as_prompts_alone_are(model, rows):
    """What they begin with is read once, and the scores are the same to the last bit."""
    prompts = [model.read(row).prompt for row in rows]
    assert model.reader.score(prompts) == [model.reader.score([prompt])[0] for prompt in prompts]
    assert model.reader.effort(prompts) < sum(model.reader.effort([prompt]) for prompt in set(prompts))
    readouts = [Readout(layers, pooling) for layers in (1, 2) for pooling in ("last", "mean")]
    together = model.reader.embed(prompts, readouts)
    for index, prompt in enumerate(prompts):
        alone = model.reader.embed([prompt], readouts)
        for readout in readouts:
            assert np.array_equal(together[readout][index], alone[readout][0])


def test_a_lesion_unlike_all_others_is_far_though_each_value_is_usual(model, rows):
    usual = [prediction.typicality.percentile for prediction in model.predict_many(rows, explain=False)]
    assert 40 < np.median(usual) < 60
    own, other = (summary for summary in model.card.features[:2])
    corner = max(
        (
            rows[0].model_copy(
                update={"values": {**rows[0].values, own.feature: first, other.feature: second}},
            )
            for first in (own.quantiles[1], own.quantiles[-2])
            for second in (other.quantiles[1], other.quantiles[-2])
        ),
        key=lambda row: model.predict(row, explain=False).typicality.distance,
    )
    prediction = model.predict(corner, explain=False)
    assert prediction.typicality.percentile > np.median(usual)
    far = {row.feature: row.mean + 30 * row.deviation for row in model.card.features}
    unlike = rows[0].model_copy(update={"values": {**rows[0].values, **far}})
    prediction = model.predict(unlike, explain=False)
    assert prediction.typicality.percentile == 100
    assert "far-from-training" in [caution.code for caution in prediction.cautions]


# --- what it refuses ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ask", ["predict", "predict_many", "embed"])
def test_a_missing_feature_is_named(model, rows, ask):
    first = model.card.features[0].feature
    values = {name: value for name, value in rows[0].values.items() if name != first}
    lesion = rows[0].model_copy(update={"values": values})
    with pytest.raises(RadllmError, match=f"This lesion lacks 1 of the 4 features .* first '{first}': extract with"):
        getattr(model, ask)(lesion if ask == "predict" else [rows[1], lesion])


@pytest.mark.parametrize("ask", ["predict", "predict_many", "embed"])
def test_an_undefined_value_is_named(model, rows, ask):
    first = model.card.features[0].feature
    lesion = rows[0].model_copy(update={"values": {**rows[0].values, first: None}})
    with pytest.raises(RadllmError, match="is undefined for this lesion: check its mask and image"):
        getattr(model, ask)(lesion if ask == "predict" else [rows[1], lesion])


@pytest.mark.skipif("mammo-descriptors" not in shipped_models(), reason="needs the shipped model")
def test_a_model_of_descriptors_alone_needs_one_and_no_image():
    """All of this is said before the base model is looked for."""
    own = Model.load("mammo-descriptors")
    for given in ({}, {"halo": "yes"}):
        with pytest.raises(RadllmError, match=r"reads descriptors and this lesion has none: give some of .*mass_shape"):
            own.predict(Features(values={}, descriptors=given))
    assert "is oval" in own.read(Features(values={}, descriptors={"mass_shape": "oval"})).prompt
    with pytest.raises(RadllmError, match="no features of an image: use radllm describe"):
        own.settings  # noqa: B018


def test_another_base_model_is_refused(tiny_model, tiny_copy: Path, rows):
    config = json.loads((tiny_copy / "config.json").read_text())
    (tiny_copy / "config.json").write_text(json.dumps({**config, "rms_norm_eps": 0.5}))
    other = Model.load(tiny_model, tiny_copy)
    for ask in (other.warm_up, lambda: other.predict(rows[0]), lambda: other.embed(rows[:1])):
        with pytest.raises(RadllmError, match="is not the one the model tiny was trained on .*: pull or give that one"):
            ask()
