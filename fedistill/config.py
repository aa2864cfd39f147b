"""RunConfig: the Flower run config, validated once at the edge and frozen inside.

Keys are kebab-case in `pyproject.toml` and on the command line (`budget-epsilon`), snake_case in
Python (`budget_epsilon`). Every bound that does not depend on data is checked here, before any
site is asked and any budget is spent.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

from pydantic import ValidationError, model_validator

from fedistill import config_rules as rules
from fedistill.aggregation_rules import CORRECTION_ROUNDS, FEDERATED, check_aggregation
from fedistill.config_keys import AnswerKeys, DataKeys, RunKeys, SumKeys
from fedistill.config_recipe import check_recipe_keys, files_sha256
from fedistill.config_rules import Scalar
from fedistill.config_student_keys import StudentKeys
from fedistill.errors import ConfigError


class RunConfig(RunKeys, StudentKeys, SumKeys, AnswerKeys, DataKeys):
    """What a run asks for. Bases stand in reverse: fields are documented from the last one on."""

    @model_validator(mode="after")
    def _keys_agree(self) -> Self:
        if not self.site_column and self.min_sites > self.num_sites:
            raise ConfigError(
                f"min-sites={self.min_sites} must be at most num-sites={self.num_sites}: "
                "lower min-sites"
            )
        if self.student == "mlp" and self.augmentation == "affine":
            raise ConfigError(
                "augmentation='affine' moves images, and student='mlp' learns rows of a table: set "
                "student to 'cnn', 'resnet' or 'vit', or augmentation to 'auto'"
            )
        if self.encoder == rules.SELF_SUPERVISED and self.proxy_path:
            raise ConfigError(
                f"encoder={self.encoder!r} is trained in simulations, and proxy-path is given: "
                "train one by `fedistill encoder train` and publish it with the proxy set"
            )
        if self.student == "encoder" and ":" in self.encoder:
            raise ConfigError(
                f"encoder={self.encoder!r} must be a file with student='encoder', which begins "
                "with its weights: train one by `fedistill encoder train`, or take another student"
            )
        if self.cross_fit_folds == 1:
            raise ConfigError("cross-fit-folds=1 must be 0 or at least 2: use 0 for none")
        if self.student == "vit" and self.holdout_fraction > 0:
            raise ConfigError(
                f"holdout-fraction={self.holdout_fraction} must be 0 with student='vit': sites run "
                "no transformer on held-out rows; set another student, or 0"
            )
        if self.quantize in ("int8-dynamic", "fp16") and self.holdout_fraction > 0:
            raise ConfigError(
                f"holdout-fraction={self.holdout_fraction} must be 0 with quantize="
                f"{self.quantize!r}: sites run no such student on held-out rows; set "
                "quantize='int8', or 0"
            )
        check_recipe_keys(self)
        if self.min_sites < self.sites_needed:
            raise ConfigError(
                f"min-sites={self.min_sites} must be at least {self.sites_needed} with "
                f"ensemble-weights={self.ensemble_weights!r}"
                + (f" and trim={self.trim}" if self.ensemble_weights == "trimmed" else "")
                + ", or one site decides alone: raise min-sites"
                + (" or lower trim" if self.ensemble_weights == "trimmed" else "")
            )
        if bool(self.proxy_path) != bool(self.test_path) or (self.proxy_path and not self.classes):
            raise ConfigError(
                f"proxy-path={self.proxy_path!r}, test-path={self.test_path!r} and classes="
                f"{self.classes!r} must be given together: a deployment needs all, a simulation "
                "none"
            )
        if self.budget < self.epsilon:
            raise ConfigError(
                f"budget-epsilon={self.budget_epsilon} must be 0 or at least "
                f"epsilon={self.epsilon}: raise budget-epsilon or lower epsilon"
            )
        check_aggregation(
            secure=self.secure_aggregation,
            trust=self.trust,
            weights=self.ensemble_weights,
            answers=self.answers,
            rounds=self.rounds,
            mechanisms=frozenset([self.mechanism, *(name for _, name, _ in self.exceptions)]),
        )
        if self.proxy_fraction + self.test_fraction >= 0.95:
            raise ConfigError(
                f"proxy-fraction={self.proxy_fraction} and test-fraction={self.test_fraction} "
                "must sum to less than 0.95: lower one of them"
            )
        if len(set(self.sites)) < len(self.sites):
            raise ConfigError(
                f"site-names={self.site_names!r} must name each site differently: rename one"
            )
        return self

    @classmethod
    def from_flat(cls, values: Mapping[str, Scalar]) -> "RunConfig":
        """The validated config of kebab-case keys; missing keys take their defaults.

        Raises:
            ConfigError: Names the key, its value and the bound; an unknown key comes with the
                nearest known one.
        """
        known = [key.name for key in describe_keys()]
        for key in values:
            if key not in known:
                raise ConfigError(rules.unknown_key(key, known))
        try:
            return cls.model_validate(dict(values))
        except ValidationError as error:
            raise ConfigError(rules.sentence(error.errors(include_url=False)[0])) from None

    @property
    def sites(self) -> tuple[str, ...]:
        """Names of the sites when there is no `site-column`, whose values name them otherwise."""
        named = rules.split_names(self.site_names)[: self.num_sites]
        return named + tuple(f"site_{i}" for i in range(len(named), self.num_sites))

    @property
    def ignored(self) -> tuple[str, ...]:
        """Names of the columns that are no features."""
        return rules.split_names(self.ignore_columns)

    @property
    def budget(self) -> float:
        """Each site's whole budget in epsilon at `delta`."""
        return self.budget_epsilon or self.epsilon + self.epsilon_held_out

    @property
    def epsilon_held_out(self) -> float:
        """What scoring the student on held-out units may cost a site; 0 where none are."""
        return self.evaluation_epsilon if self.holdout_fraction > 0 else 0.0

    @property
    def weighting(self) -> str:
        """How sites count, with `auto` decided."""
        if self.ensemble_weights != "auto":
            return self.ensemble_weights
        return "uniform" if self.secure_aggregation else "agreement"

    @property
    def num_rounds(self) -> int:
        """Federation rounds, with 0 decided."""
        if self.rounds == 0:
            return CORRECTION_ROUNDS if self.mechanism == FEDERATED else 1
        return self.rounds

    @property
    def sites_needed(self) -> int:
        """Answers below which `ensemble-weights` cannot be computed."""
        return {"median": 3, "trimmed": 2 * self.trim + 1}.get(self.ensemble_weights, 1)

    def mechanism_of(self, site: str) -> tuple[str, str]:
        """Mechanism and teacher of a site."""
        for name, mechanism, teacher in self.exceptions:
            if name == site:
                return mechanism, teacher
        return self.mechanism, self.teacher

    @property
    def exceptions(self) -> tuple[tuple[str, str, str], ...]:
        """Sites that `site-mechanisms` names, each with its mechanism and teacher."""
        found = []
        for entry in rules.split_names(self.site_mechanisms):
            site, _, answer = entry.partition("=")
            mechanism, _, teacher = answer.partition(":")
            found.append((site.strip(), mechanism.strip(), teacher.strip()))
        return tuple(found)

    def to_flat(self) -> dict[str, Scalar]:
        """All keys, kebab-case; `from_flat` takes them back."""
        return self.model_dump(by_alias=True)

    def sha256(self) -> str:
        """Hex digest of the canonical JSON of all keys."""
        text = json.dumps(self.to_flat(), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()

    def work_sha256(self) -> str:
        """`sha256` of what a run computes, whichever folder it is in.

        Of files that say how the student learns it covers what they hold: a recipe that was changed
        is another recipe.

        Raises:
            ConfigError: Such a file cannot be read.
        """
        keys = self.model_copy(update={"output_dir": "", "resume": ""}).sha256()
        contents = files_sha256({"recipe": self.recipe, "public-teacher": self.public_teacher})
        return hashlib.sha256((keys + contents).encode()).hexdigest() if contents else keys


@dataclass(frozen=True, kw_only=True)
class Key:
    """One run-config key as documented: its default and its meaning."""

    name: str
    default: Scalar
    meaning: str


def describe_keys() -> tuple[Key, ...]:
    """Every key in the order of the documentation."""
    return tuple(
        Key(name=str(field.alias), default=field.default, meaning=str(field.description))
        for field in RunConfig.model_fields.values()
    )
