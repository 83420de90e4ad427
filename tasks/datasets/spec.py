"""Settings of a data set: the built-in identities, or a folder of images."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from tasks.spec import Spec


class BuiltinData(Spec):
    """Procedural faces: no download, any number of identities, nobody real."""

    kind: Literal["builtin"] = "builtin"
    identities: int = Field(40, ge=2, description="Private identities: the classes of the model.")
    train_images: int = Field(40, ge=2, description="Training images of each private identity.")
    test_images: int = Field(10, ge=1, description="Test images of each private identity.")
    surrogate_identities: int = Field(
        100, ge=1, description="Pool of outside identities that may lend their images."
    )
    surrogate_images: int = Field(40, ge=1, description="Images of each identity of the pool.")
    public_identities: int = Field(
        2500, ge=2, description="Other identities: what the attacker trains the prior on."
    )
    public_images: int = Field(8, ge=1, description="Images of each public identity.")
    image_size: int = Field(32, ge=16, le=256, description="Height and width in pixels.")


class FolderData(Spec):
    """A folder with one subfolder of images a class (ImageFolder layout)."""

    kind: Literal["folder"]
    root: Path = Field(description="The folder that holds one subfolder for each class.")
    private: tuple[str, ...] = Field(min_length=2, description="Classes that the model learns.")
    surrogates: tuple[str, ...] = Field(description="Classes that may lend their images.")
    public: tuple[str, ...] = Field(
        min_length=1, description="Classes that the attacker has, to train the prior on."
    )
    test_fraction: float = Field(0.2, gt=0, lt=1, description="Share of private images to test on.")
    max_images_per_class: int | None = Field(
        None, ge=2, description="Take at most so many images of a class; null takes all."
    )
    image_size: int = Field(32, ge=16, le=1024, description="Height and width in pixels.")
    crop: Literal["center", "none"] = Field(
        "center", description="center: largest centred square, then resize. none: resize only."
    )
    max_quarantine_fraction: float = Field(
        0.01, ge=0, le=1, description="Stop when more than this share of images is unreadable."
    )

    @model_validator(mode="after")
    def _private_is_private(self) -> Self:
        for field in ("private", "surrogates", "public"):
            names = getattr(self, field)
            twice = next((name for name in names if names.count(name) > 1), None)
            if twice is not None:
                raise ValueError(f"class {twice!r} is named twice in {field}; name it once")
        for other, names in (("surrogates", self.surrogates), ("public", self.public)):
            shared = sorted(set(self.private) & set(names))
            if shared:
                raise ValueError(
                    f"class {shared[0]!r} is both private and in {other}; name it in one of them"
                )
        return self


DataSpec = Annotated[BuiltinData | FolderData, Field(discriminator="kind")]
