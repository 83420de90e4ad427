"""Settings of a data set: the built-in identities, or a folder of images."""

from __future__ import annotations

import os
from typing import Annotated, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

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

    @property
    def names_public(self) -> bool:
        """Whether public images are of people who can be told apart."""
        return True


LayoutName = Literal[
    "imagefolder",
    "celeba",
    "facescrub",
    "vggface2",
    "ffhq",
    "gtsrb",
    "tsrd",
    "stanford-dogs",
    "parquet",
    "webdataset",
]


def _as_text(root: object) -> object:
    return os.fspath(root) if isinstance(root, os.PathLike) else root


Root = Annotated[str, BeforeValidator(_as_text)]


class CropSpec(Spec):
    """A part of the image; one of the three."""

    pixels: int | None = Field(
        None, ge=1, description="Side of the central square, in pixels of the file."
    )
    share: float | None = Field(
        None, gt=0, le=1, description="Side of the central square, of the shorter side."
    )
    box: float | None = Field(
        None, gt=0, le=4, description="The annotated box, made larger by this factor; 1 keeps it."
    )

    @model_validator(mode="after")
    def _one_of_three(self) -> Self:
        if sum(value is not None for value in (self.pixels, self.share, self.box)) != 1:
            raise ValueError("crop needs exactly one of pixels, share and box")
        return self


Crop = Literal["center", "none"] | CropSpec


class PublicFrom(Spec):
    """Another data set, whose images are what the attacker has."""

    layout: LayoutName = Field("imagefolder", description="How it is laid out; docs/data.md.")
    root: Root = Field(description="Its folder, .zip, or URI.")
    crop: Crop = Field("center", description="As data.crop.")
    max_images: int | None = Field(
        None, ge=2, description="Take at most so many images; null takes all."
    )


class FolderData(Spec):
    """Images in a folder, a zip or an object store, in one of the published layouts."""

    kind: Literal["folder"]
    layout: LayoutName = Field(
        "imagefolder",
        description="imagefolder: one subfolder for each class. The others: docs/data.md.",
    )
    root: Root = Field(description="The folder, a .zip, or an URI such as s3://bucket/faces.")
    private: Annotated[tuple[str, ...], Field(min_length=2)] | Annotated[int, Field(ge=2)] = Field(
        description="Classes that the model learns. Names, or how many, those with most images "
        "first.",
    )
    surrogates: tuple[str, ...] | Annotated[int, Field(ge=0)] = Field(
        description="Classes that may lend their images. Names, or the next so many; empty only "
        "where the pool is elsewhere (protect.surrogate_pool).",
    )
    public: tuple[str, ...] | Annotated[int, Field(ge=0)] | Literal["rest"] = Field(
        description="Classes that the attacker has, to train the prior on. Names, the next so "
        "many, or all the rest.",
    )
    public_from: PublicFrom | None = Field(
        None, description="Another data set that the attacker has, beside or instead of `public`."
    )
    split: Literal["drawn", "published"] = Field(
        "drawn",
        description="drawn: of each class by test_fraction, no track divided. published: the data "
        "set's own, or that of PPA and DCD (nine tenths, NumPy's shuffle with seed 42).",
    )
    test_fraction: float = Field(0.2, gt=0, lt=1, description="Share of private images to test on.")
    max_images_per_class: int | None = Field(
        None, ge=2, description="Take at most so many images of a class; null takes all."
    )
    image_size: int = Field(32, ge=16, le=1024, description="Height and width in pixels.")
    crop: Crop = Field(
        "center",
        description="center: largest centred square, then resize. none: resize only. Or a part: "
        "{pixels: 108}, {share: 0.6875}, {box: 1.3}.",
    )
    max_quarantine_fraction: float = Field(
        0.01, ge=0, le=1, description="Stop when more than this share of images is unreadable."
    )

    @property
    def names_public(self) -> bool:
        """Whether public images are of people who can be told apart; another data set's are not."""
        if isinstance(self.public, int):
            return self.public >= 2
        return self.public == "rest" or len(self.public) >= 2

    @model_validator(mode="after")
    def _private_is_private(self) -> Self:
        if not self.public and self.public_from is None:
            raise ValueError("public is empty; name classes, or another data set in public_from")
        for field in ("private", "surrogates", "public"):
            names = getattr(self, field)
            if not isinstance(names, tuple):
                continue
            twice = next((name for name in names if names.count(name) > 1), None)
            if twice is not None:
                raise ValueError(f"class {twice!r} is named twice in {field}; name it once")
        for other, names in (("surrogates", self.surrogates), ("public", self.public)):
            if not isinstance(names, tuple) or not isinstance(self.private, tuple):
                continue
            shared = sorted(set(self.private) & set(names))
            if shared:
                raise ValueError(
                    f"class {shared[0]!r} is both private and in {other}; name it in one of them"
                )
        return self


DataSpec = Annotated[BuiltinData | FolderData, Field(discriminator="kind")]
