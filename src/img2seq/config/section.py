"""What every section of the configuration is: strict, frozen, and it says why it refuses."""

from __future__ import annotations

from typing import Any, Self, get_args

from pydantic import BaseModel, ConfigDict, Field, model_validator

MOST = 10**12  # epochs, steps, evaluations: more than anybody waits for, and their products fit 64 bits


def neutral(default: Any, why: str) -> Any:
    """Describe a field that exists for compatibility and accepts only its default, with the reason."""
    return Field(default, description=f"Not supported: {why}", json_schema_extra={"neutral_only": why})


def sections_of(annotation: Any) -> list[type[BaseModel]]:
    """Return the sections that a field's type names: one, or of a union each kind."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [section for part in get_args(annotation) for section in sections_of(part)]


class Section(BaseModel):
    """A part of the configuration: strict types, no unknown keys, frozen once built."""

    model_config = ConfigDict(
        extra="forbid", strict=True, frozen=True, allow_inf_nan=False, protected_namespaces=(), populate_by_name=True
    )

    @model_validator(mode="after")
    def _accept_only_the_neutral_value(self) -> Self:
        for name, field in type(self).model_fields.items():
            extra = field.json_schema_extra
            if isinstance(extra, dict) and "neutral_only" in extra and getattr(self, name) != field.default:
                raise ValueError(
                    f"{name}: not supported: {extra['neutral_only']} Leave it out, or at {field.default!r}"
                )
        return self
