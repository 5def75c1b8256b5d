"""The re-fit: scikit-learn's tree is the oracle."""

from random import Random

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.tree import DecisionTreeClassifier

from madlog.processors.dtr.features import Feature
from madlog.processors.dtr.grown import CountedLeaf, Split, edge_of, leaf_of, node_of
from madlog.processors.dtr.refit import Example, refit

TABLE = {
    "form": Feature("form", str, "a form"),
    "size": Feature("size", int, "a size"),
    "kind": Feature("kind", str, "a kind"),
}


def examples(seed: int, count: int, noise: float = 0.0) -> list[Example]:
    random, made = Random(seed), list[Example]()
    for _ in range(count):
        form, size, kind = random.choice("abcdef"), random.randrange(16), random.choice("xyz")
        route = {"a": "ack", "b": "health", "c": "process"}.get(form, "imperator")
        if form == "d":
            route = "action:low" if size <= 6 else "action:high"
        if random.random() < noise:
            route = random.choice(("ack", "health", "process", "imperator"))
        made.append(((form, size, kind), route))
    return made


def test_it_answers_as_scikit_learn_does() -> None:
    seen = examples(1, 4_000, noise=0.02)
    root = refit(seen, TABLE)
    forms, kinds = "abcdef", "xyz"

    def row(values: tuple[int | str, ...]) -> list[int]:
        form, size, kind = values
        return [int(form == f) for f in forms] + [int(size)] + [int(kind == k) for k in kinds]

    grown = [one for number, one in enumerate(seen, 1) if number % 4]
    oracle = DecisionTreeClassifier(min_samples_leaf=3, random_state=0)
    oracle.fit(np.array([row(values) for values, _ in grown]), [route for _, route in grown])
    fresh = [values for values, _ in examples(2, 2_000)]
    said = oracle.predict(np.array([row(values) for values in fresh]))
    ours = [leaf_of(root, values).route for values in fresh]
    assert sum(a == b for a, b in zip(ours, said, strict=True)) >= 0.97 * len(fresh)


def test_a_rule_without_noise_is_found_exactly() -> None:
    root = refit(examples(3, 2_000), TABLE)
    assert all(leaf_of(root, values).route == route for values, route in examples(4, 2_000))


def test_leaves_are_tested_with_what_grew_nothing() -> None:
    seen = examples(5, 1_000)
    root, stack, tested = refit(seen, TABLE), list[Split | CountedLeaf](), 0
    stack.append(root)
    while stack:
        node = stack.pop()
        if isinstance(node, Split):
            stack += [node.yes, node.no]
        else:
            tested += node.tested
            assert node.wrong == 0
    assert tested == 250


def test_without_examples_it_abstains() -> None:
    assert node_of(refit([], TABLE), TABLE) == {"route": "imperator", "confidence": 0.0}


def test_a_thousand_routes_of_one_example_are_no_tree() -> None:
    seen: list[Example] = [((f"f{n}", n, "x"), f"action:a{n}") for n in range(1_000)]
    root = refit(seen, TABLE)
    assert all(leaf_of(root, values).wrong == leaf_of(root, values).tested for values, _ in seen)


@settings(max_examples=30)
@given(st.integers(0, 10_000), st.integers(0, 80))
def test_equal_examples_give_equal_trees(seed: int, count: int) -> None:
    seen = examples(seed, count, noise=0.3)
    assert node_of(refit(seen, TABLE), TABLE) == node_of(refit(list(seen), TABLE), TABLE)


@given(st.integers(-(2**53), 2**53), st.integers(-(2**53), 2**53))
def test_bins_keep_the_order_and_are_no_wider_than_an_eighth(one: int, other: int) -> None:
    low, high = sorted((one, other))
    assert edge_of(low) <= edge_of(high)
    assert 0 <= edge_of(one) - one <= abs(one) // 8
    assert edge_of(edge_of(one)) == edge_of(one)
