"""What every part of the manifest's schema is made of: frozen models, and the types of their fields."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar

from pydantic import BaseModel, ConfigDict, Field, SerializerFunctionWrapHandler, model_serializer

# A plain file name: no separator, no leading dot, so that no path can leave the bundle's folder.
FileName = Annotated[str, Field(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.\-]{0,99}$")]
# With this suffix no stage can take the name of the manifest, the golden vectors or the model card.
StageFile = Annotated[str, Field(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.\-]{0,92}\.tflite$")]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Share = Annotated[float, Field(ge=0, le=1)]
Int32 = Annotated[int, Field(ge=-(2**31), lt=2**31)]
Int8 = Annotated[int, Field(ge=-128, le=127)]
ExitName = Annotated[str, Field(pattern=r"^exit_\d{2}$")]
Subjects = tuple[int, ...]


class Spec(BaseModel):
    """Frozen, and unknown keys are errors.

    Fields that came later are left out while they have their defaults: an older manifest keeps its bytes, and
    an older reader, to whom the new key is an error, still reads what does not use it. Guarded by
    `test_a_manifest_from_before_kinds_of_calibration_keeps_its_bytes`.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    came_later: ClassVar[tuple[str, ...]] = ()

    @model_serializer(mode="wrap")
    def _without_later_defaults(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        facts: dict[str, Any] = handler(self)
        fields = type(self).model_fields
        unused = {
            name
            for name in self.came_later
            if getattr(self, name) == fields[name].get_default(call_default_factory=True)
        }
        return {name: fact for name, fact in facts.items() if name not in unused}
