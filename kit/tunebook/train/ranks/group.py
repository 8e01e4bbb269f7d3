"""What a run asks of the other processes: to hear what each says, to have arrays of the first, to add arrays up.

Plain values and arrays of this process go in, those of all come out, alike in every process. Everything is evaluated
before the engine has it and apart from any pass, in pieces of bounded size: an exchange that a GPU waits in for longer
than five seconds is ended by macOS, and one in the middle of a graph may never end (mlx#4475).
"""

import json
import math
import os
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar, final

import mlx.core as mx
import numpy as np

from .lines import introduced
from .watch import EXIT_CODE, Peer, Watch, open_sockets

T = TypeVar("T")
Arrays = dict[str, mx.array]

BUCKET_BYTES = 32_000_000  # that are added up at once: half a second over Ethernet of 1 Gbit
MESSAGE_BYTES = 4096  # of a plain value that is exchanged at once; a longer one takes a second exchange
JOIN_SECONDS = 120.0  # in which all processes have to be there
NEWS_SECONDS = 5.0  # in which the watch finds out what broke an exchange


class RankLost(RuntimeError):
    """A process of the run ended, was stopped or cannot be reached."""


@dataclass
class Traffic:
    """What was exchanged since somebody asked last."""

    waited: float = 0.0  # seconds for others
    seconds: float = 0.0  # that arrays took
    bytes: int = 0  # of arrays that this process gave to be added up


@final
class Ranks:
    """The processes of a run. `rank` is this one's number among `size`; alone it is 0 of 1, and nothing is sent."""

    def __init__(self, group: mx.distributed.Group | None = None):
        self.rank = 0 if group is None else group.rank()
        self.size = 1 if group is None else group.size()
        self.adds_alike = True  # whether the engine's sums are the same to the last bit in every process
        self.traffic = Traffic()
        self.peers: Sequence[Peer] = ()
        self._group = group
        self._watch: Watch | None = None
        self._stream = mx.gpu if "NCCL_HOST_IP" in os.environ else mx.cpu

    @property
    def is_first(self) -> bool:
        """Whether this is the process that writes and tells."""
        return self.rank == 0

    @property
    def is_alone(self) -> bool:
        """Whether there is no other."""
        return self.size == 1

    def meet(self, engine: Sequence[tuple[int, int]]) -> None:
        """Watch over one another from now on; `engine` are MLX's connections. Raises NoLine."""
        me, lines = introduced(self.rank, self.exchange)
        self.peers = [Peer(number, *each) for number, each in enumerate(self.exchange([me.host, me.pid, me.space]))]
        self._watch = Watch(me, lines, engine)

    def begin(self, last_resort: Callable[[], Iterable[Any]]) -> None:
        """A run begins. `last_resort` saves it while it is drained, in another thread, where an exchange never ends."""
        if self._watch is not None:
            self._watch.last_resort = last_resort
            self._watch.begin()
            self.check()

    def done(self) -> None:
        """The run has ended alike in every process."""
        if self._watch is not None:
            self._watch.done()

    def leave(self, why: str) -> None:
        """The run ends in this process alone, which the others are told."""
        if self._watch is not None:
            self._watch.leave(why)

    def check(self) -> None:
        """Raise RankLost where another process is gone."""
        if self._watch is not None and self._watch.lost is not None:
            raise RankLost(self._watch.lost)

    def exchange(self, value: Any) -> list[Any]:
        """What each process gave, by rank; values JSON keeps as they are, NaN and infinities among them."""
        if self._group is None:
            return [value]
        began = time.perf_counter()
        content = json.dumps(value).encode()
        head = len(content).to_bytes(8, "little") + content[: MESSAGE_BYTES - 8]
        heads = self._gathered(np.frombuffer(head.ljust(MESSAGE_BYTES, b"\0"), np.uint8))
        lengths = [int.from_bytes(each[:8].tobytes(), "little") for each in heads]
        found = [each[8 : 8 + length].tobytes() for each, length in zip(heads, lengths, strict=True)]
        longest = max(lengths) - (MESSAGE_BYTES - 8)
        if longest > 0:
            rest = content[MESSAGE_BYTES - 8 :].ljust(longest, b"\0")
            rests = self._gathered(np.frombuffer(rest, np.uint8))
            found = [
                start + more.tobytes()[: max(0, length - (MESSAGE_BYTES - 8))]
                for start, more, length in zip(found, rests, lengths, strict=True)
            ]
        self.traffic.waited += time.perf_counter() - began
        return [json.loads(each) for each in found]

    def of_first(self, value: T) -> T:
        """What the first process gave."""
        return self.exchange(value if self.is_first else None)[0]

    def arrays_of_first(self, arrays: Mapping[str, mx.array] | None) -> Arrays | None:
        """The arrays the first process gave, bit for bit; what another gives is not looked at."""
        if self._group is None:
            return None if arrays is None else dict(arrays)
        forms = None
        if self.is_first and arrays is not None:
            forms = {name: [str(array.dtype).rpartition(".")[2], list(array.shape)] for name, array in arrays.items()}
        forms = self.of_first(forms)
        if forms is None:
            return None
        found: Arrays = {}
        for name, (dtype, shape) in forms.items():
            kind: mx.Dtype = getattr(mx, dtype)
            nbytes = math.prod(shape) * kind.size
            own = mx.zeros(nbytes, mx.uint8)
            if self.is_first and arrays is not None and nbytes:
                own = mx.contiguous(arrays[name]).reshape(-1).view(mx.uint8)
            pieces = [self._collected(own[start : start + BUCKET_BYTES])[0] for start in range(0, nbytes, BUCKET_BYTES)]
            whole = mx.concatenate(pieces) if pieces else own
            found[name] = whole.view(kind).reshape(shape)
        mx.eval(found)
        return found

    def summed(self, arrays: Arrays) -> Arrays:
        """Each array added up over all processes, in pieces of BUCKET_BYTES, one evaluated after another."""
        if self._group is None:
            return arrays
        began = time.perf_counter()
        values = {name: array.reshape(-1) for name, array in arrays.items()}
        added: dict[str, list[mx.array]] = {name: [] for name in arrays}
        bucket: list[tuple[str, mx.array]] = []
        room = BUCKET_BYTES
        for name, value in values.items():
            start = 0
            while start < value.size:
                count = min(value.size - start, max(1, room // value.itemsize))
                bucket.append((name, value[start : start + count]))
                start, room = start + count, room - count * value.itemsize
                if room < value.itemsize:
                    self._empty(bucket, added)
                    bucket, room = [], BUCKET_BYTES
        self._empty(bucket, added)
        found = {name: mx.concatenate(added[name]).reshape(array.shape) for name, array in arrays.items()}
        mx.eval(found)
        self.traffic.seconds += time.perf_counter() - began
        self.traffic.bytes += sum(array.nbytes for array in arrays.values())
        return found

    def taken_traffic(self) -> Traffic:
        """What was exchanged since this was asked last."""
        traffic, self.traffic = self.traffic, Traffic()
        return traffic

    def _empty(self, bucket: Sequence[tuple[str, mx.array]], added: dict[str, list[mx.array]]) -> None:
        """Add up the pieces of a bucket, which are of one type."""
        if not bucket:
            return
        total = self._total(mx.concatenate([piece for _, piece in bucket]))
        start = 0
        for name, piece in bucket:
            added[name].append(total[start : start + piece.size])
            start += piece.size

    def _total(self, own: mx.array) -> mx.array:
        """(N,) added up over all processes, evaluated and the same in all of them."""
        mx.eval(own)
        group, stream = self._group, self._stream
        if self.adds_alike:
            return self._exchanged(lambda: mx.distributed.all_sum(own, group=group, stream=stream))
        collected = self._collected(own)
        total = collected[0]
        for rank in range(1, self.size):  # in one order everywhere
            total = total + collected[rank]
        mx.eval(total)
        return total

    def _gathered(self, own: np.ndarray) -> np.ndarray:
        return np.array(self._collected(mx.array(own)))

    def _collected(self, own: mx.array) -> mx.array:
        """(size, N) of each process's (N,), by rank, evaluated."""
        mx.eval(own)
        group, stream = self._group, self._stream
        return self._exchanged(lambda: mx.distributed.all_gather(own[None], group=group, stream=stream))

    def _exchanged(self, exchange: Callable[[], mx.array]) -> mx.array:
        """What the engine gives, evaluated. Raises RankLost where it cannot, or another process is gone."""
        self.check()
        watch = self._watch
        if watch is None:
            found = exchange()
            mx.eval(found)
            return found
        try:
            with watch.inside():
                found = exchange()
                mx.eval(found)
        except RuntimeError as error:
            lost = watch.found_out(NEWS_SECONDS)
            if lost is None and "[ring]" not in str(error):
                raise
            raise RankLost(lost or f"The connection to another rank broke off ({error}).") from error
        return found


ALONE = Ranks()
_joined: Ranks | None = None


def is_launched() -> bool:
    """Whether this process was started as one of several, by `mlx.launch`, MPI or whoever sets what they do."""
    mpi = os.environ.get("OMPI_COMM_WORLD_SIZE", os.environ.get("PMI_SIZE", "1"))
    hosts = os.environ.get("MLX_HOSTFILE")
    if hosts is not None and Path(hosts).is_file() and not Path(hosts).read_text().strip():
        return False  # what `mlx.launch -n 1` leaves, and MLX cannot read
    return "MLX_RANK" in os.environ or (mpi.isdecimal() and int(mpi) > 1)


def joined() -> Ranks:
    """The processes this one was started with, met once; ALONE where it was started by itself.

    Raises RankLost where one of them is gone, NoLine where they cannot reach one another.
    """
    global _joined
    if not is_launched():
        return ALONE
    if _joined is None:
        late = threading.Timer(JOIN_SECONDS, _give_up)
        late.daemon = True
        late.start()
        before = open_sockets()
        group = mx.distributed.init()
        ranks = ALONE if group.size() == 1 else Ranks(group)
        if not ranks.is_alone:
            ranks.meet(sorted(open_sockets() - before))
        late.cancel()
        _joined = ranks
    _joined.check()
    return _joined


def _give_up() -> None:
    rank = os.environ.get("MLX_RANK", "?")
    text = f"Rank {rank} has waited {JOIN_SECONDS:.0f} seconds for the others to be there, and ends.\n"
    os.write(2, text.encode())
    os._exit(EXIT_CODE)
