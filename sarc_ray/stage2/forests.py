"""Forests of scikit-learn whose trees are made without asking what they are made of.

On some hundreds of patients, building a tree takes a fraction of the time that scikit-learn spends around it. A good
part of that is ``clone`` and ``set_params``, which read the signature of the tree's constructor several times for each
tree of each forest. The trees here know their parameters by name. Their forests equal plain ones to the last bit, and
``sklearn.base.clone`` of such a forest is a plain forest.
"""

from __future__ import annotations

from typing import Any, ClassVar, Self

from sklearn.ensemble import ExtraTreesClassifier, RandomForestClassifier
from sklearn.tree import DecisionTreeClassifier, ExtraTreeClassifier


class _KnowsItsParameters:
    """What scikit-learn's ``get_params`` and ``clone`` would find out again for every tree."""

    _names: ClassVar[tuple[str, ...]]

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """As in scikit-learn; no parameter of a tree is an estimator, so ``deep`` makes no difference."""
        return {name: getattr(self, name) for name in self._names}

    def __sklearn_clone__(self) -> Self:
        return type(self)(**self.get_params())


class _Tree(_KnowsItsParameters, DecisionTreeClassifier):  # type: ignore[misc]
    _names = tuple(DecisionTreeClassifier().get_params())


class _ExtraTree(_KnowsItsParameters, ExtraTreeClassifier):  # type: ignore[misc]
    _names = tuple(ExtraTreeClassifier().get_params())


def random_forest(**params: Any) -> RandomForestClassifier:
    """An unfitted ``RandomForestClassifier``, whose parameters these are, of trees that are made quickly."""
    forest = RandomForestClassifier(**params)
    forest.estimator = _Tree()
    return forest


def extra_trees(**params: Any) -> ExtraTreesClassifier:
    """An unfitted ``ExtraTreesClassifier``, whose parameters these are, of trees that are made quickly."""
    forest = ExtraTreesClassifier(**params)
    forest.estimator = _ExtraTree()
    return forest
