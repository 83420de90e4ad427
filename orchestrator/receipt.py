"""The receipt of `dcdctl forget`: what was removed, provable later, without the person's name.

Who has the name can check it against the hash, which is salted and slow, so that names are not
tried by the million. The rest of the receipt says nothing of who it was.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import secrets
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Literal

from pydantic import Field, ValidationError

from orchestrator.provenance import person_code
from tasks.errors import ForgottenPersonError, StoreError
from tasks.spec import Spec

RECEIPTS = "receipts"
_SCRYPT_N, _SCRYPT_R, _SCRYPT_P = 1 << 15, 8, 1
_SCRYPT_MEMORY = 64 << 20


class PersonProof(Spec):
    """Who it was, for those who know the name."""

    pseudonym: str = Field(description="In this storage; keyed by its secret.")
    code: str = Field(description="The longer number, by which a data set is checked for them.")
    salt: str
    scrypt: str = Field(description="Hash of the name: n=32768, r=8, p=1, 32 bytes.")


class RemovedFile(Spec):
    """A file that is gone."""

    path: str = Field(description="Inside the storage.")
    sha256: str
    bytes: int
    why: str


class EditedFile(Spec):
    """A file that lost what it said of the person."""

    path: str
    sha256_before: str
    sha256_after: str


class Receipt(Spec):
    """What `dcdctl forget` did."""

    format: Literal["dcdctl-forget/1"] = "dcdctl-forget/1"
    id: str
    at: str = Field(description="UTC.")
    storage: str
    complete: bool = Field(description="false: it was cut off; forget the person again.")
    person: PersonProof
    removed: tuple[RemovedFile, ...]
    edited: tuple[EditedFile, ...]
    made_anew: tuple[str, ...] = Field((), description="Reports, from what is left.")
    mlflow_runs: int = Field(0, description="Removed from the storage's own MLflow database.")
    not_reached: tuple[str, ...] = Field(description="What this could not remove, a sentence each.")
    dcdctl: str
    seal: str = Field("", description="SHA-256 of the rest.")

    def sealed(self) -> Receipt:
        """Return the receipt with its seal."""
        return self.model_copy(update={"seal": self.expected_seal()})

    def expected_seal(self) -> str:
        """Return what the seal has to be."""
        text = json.dumps(self.model_dump(mode="json", exclude={"seal"}), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()

    def text(self) -> bytes:
        """Return the file's content."""
        return (self.sealed().model_dump_json(indent=2) + "\n").encode()


def proof_of(name: str, pseudonym: str, code: int) -> PersonProof:
    """Return what tells, to who knows a name, that it is the one."""
    salt = secrets.token_hex(16)
    return PersonProof(
        pseudonym=pseudonym, code=f"{code:016x}", salt=salt, scrypt=_hash(name, salt)
    )


def is_of(proof: PersonProof, name: str) -> bool:
    """Say whether a receipt is of a person."""
    return hmac.compare_digest(proof.scrypt, _hash(name, proof.salt))


def _hash(name: str, salt: str) -> str:
    return hashlib.scrypt(
        name.encode(),
        salt=bytes.fromhex(salt),
        n=_SCRYPT_N,
        r=_SCRYPT_R,
        p=_SCRYPT_P,
        maxmem=_SCRYPT_MEMORY,
        dklen=32,
    ).hex()


def read_receipt(data: bytes, where: str) -> Receipt:
    """Return a receipt.

    Raises:
        StoreError: it cannot be read, or was changed since it was written.
    """
    try:
        found = Receipt.model_validate_json(data)
    except ValidationError as error:
        raise StoreError(f"{where} is no receipt of `dcdctl forget`, or was damaged") from error
    if found.seal != found.expected_seal():
        raise StoreError(f"the receipt {where} was changed since it was written: its seal differs")
    return found


def refuse_forgotten(folder: Path, key: Callable[[], bytes], identities: Iterable[str]) -> None:
    """Refuse data in which somebody is whom this storage was told to forget.

    Args:
        folder: of the receipts.
        key: returns the storage's.
        identities: of the data set.

    Raises:
        ForgottenPersonError: says which receipt, and not who.
    """
    receipts = sorted(folder.glob("*.json"))
    if not receipts:
        return
    secret = key()
    codes = {}
    for path in receipts:
        found = read_receipt(path.read_bytes(), str(path))
        codes[int(found.person.code, 16)] = found
    for name in identities:
        receipt = codes.get(person_code(secret, name))
        if receipt is not None:
            raise ForgottenPersonError(
                f"the data set has pictures of a person whom this storage was told to forget on "
                f"{receipt.at[:10]}; take them out of it. `dcdctl forget - --verify "
                f"{folder / receipt.id}.json` says of a name whether it is theirs; to "
                "take them in again, remove that receipt"
            )
