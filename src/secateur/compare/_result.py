"""What a finished cell came to, as it lies on the disk."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from secateur.compare.recipes import Bill, Item
from secateur.errors import StorageError
from secateur.report.kit import write_beside


class _Record(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)


class Seconds(_Record):
    """Seconds of a forward pass, measured in turn; see `Latency`.

    Attributes:
        dense: Of the full network.
        own: Of this cell's network.
    """

    dense: Annotated[float, Field(gt=0)]
    own: Annotated[float, Field(gt=0)]


class Cost(_Record):
    """One part of the bill; see `Item`."""

    what: Literal["pre-training", "training", "pruning", "fine-tuning"]
    macs: float
    seconds: float


class Result(_Record):
    """What a finished cell came to.

    Attributes:
        kind: What the file is.
        version: Of its form.
        test_accuracy: Of the last epoch, in [0, 1], on images no decision saw.
        macs: Multiply-accumulates of one image.
        dense_macs: Those of the full network.
        params: Number of parameters.
        dense_params: That of the full network.
        latency: Batch size to seconds.
        bill: What it cost.
        machine: Where it ran: system, processor, device, threads.
        versions: Of secateur, torch and Python.
        run: Folder of the run that ended with the network, seen from the comparison's folder.
    """

    kind: Literal["secateur comparison cell"] = "secateur comparison cell"
    version: Literal[1] = 1
    test_accuracy: float
    macs: float
    dense_macs: float
    params: int
    dense_params: int
    latency: dict[int, Seconds]
    bill: list[Cost]
    machine: dict[str, str | int]
    versions: dict[str, str]
    run: str

    @property
    def macs_share(self) -> float:
        """MACs as a share of the full network's."""
        return self.macs / self.dense_macs

    @property
    def params_share(self) -> float:
        """Parameters as a share of the full network's."""
        return self.params / self.dense_params

    @property
    def total(self) -> Bill:
        """The bill, with its sums."""
        items = (Item(what=c.what, macs=c.macs, seconds=c.seconds) for c in self.bill)
        return Bill(tuple(items))


def read_result(path: Path) -> Result | None:
    """Read what a cell came to.

    Args:
        path: Its file.

    Returns:
        The result; None if the cell has not been finished.

    Raises:
        StorageError: The file is damaged or foreign.
    """
    try:
        return Result.model_validate_json(path.read_bytes())
    except (FileNotFoundError, NotADirectoryError):
        return None
    except ValidationError as error:
        detail = error.errors()[0]
        where = ".".join(map(str, detail["loc"])) or "the file"
        raise StorageError(
            f"{path} is not the result of a cell ({where}: {detail['msg']}). Delete "
            "the file to work the cell out again from its finished runs."
        ) from error
    except OSError as error:
        raise StorageError(
            f"{path} cannot be read ({error.strerror or error}). Make it readable, or delete it to "
            "work the cell out again from its finished runs."
        ) from error


def write_result(path: Path, result: Result) -> None:
    """Write what a cell came to; the file is there as a whole or not at all.

    Args:
        path: Its file.
        result: The result.

    Raises:
        StorageError: The file cannot be written.
    """
    write_beside(path, result.model_dump_json(indent=1) + "\n")
