"""What is measured. The figures wanted are the least that a change may leave."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Case:
    name: str
    data: str
    rows: int
    queries: int
    dim: int
    k: int = 30
    # Queries that are searched at a time; all of them unless said.
    batch: int | None = None
    # Other libraries, measured in turn with atlasknn.
    peers: tuple = ("faiss",)
    # Other orders of the references, on which atlasknn is measured in the same turns.
    orders: tuple = ()
    # The least ratio to faiss, and the least share of sgemm.
    wanted: float | None = None
    wanted_share: float | None = None
    approximate: bool = False

    def small(self):
        """The same for a smoke run."""
        rows, queries = min(self.rows, 20_000), min(self.queries, 500)
        batch = 100 if self.batch else None
        values = self.__dict__ | {"rows": rows, "queries": queries, "batch": batch}
        return Case(**values)


MILLION = 1_000_000
# By itself faiss multiplies matrices only where queries × d reach 128,000. Cases above that, whatever it does by itself;
# those below are measured with faiss as it comes and with that threshold lowered.
BOTH_FAISS = ("faiss", "faiss with BLAS")

CASES = [
    Case(
        "mixture",
        "mixture",
        MILLION,
        10_000,
        50,
        peers=("faiss", "sgemm"),
        orders=("by cluster",),
        wanted=2.3,
        wanted_share=0.65,
    ),
    Case("GloVe-50", "words", 331_479, 10_000, 50, wanted=2.5),
    Case("MNIST-50", "mnist", 60_000, 10_000, 50, wanted=3),
    Case("batches of 1,000", "mixture", MILLION, 10_000, 50, batch=1_000, peers=BOTH_FAISS, wanted=10),
    Case("d = 10", "mixture", MILLION, 5_000, 10, peers=BOTH_FAISS, wanted=10),
    Case("d = 30", "mixture", MILLION, 5_000, 30, wanted=3),
    Case("d = 128", "mixture", 200_000, 5_000, 128, wanted=1.25),
    Case("d = 784", "mixture", 60_000, 4_000, 784, wanted=1.25),
    Case("d = 784, digits", "mnist", 60_000, 4_000, 784, wanted=1.25),
    Case("k = 1", "mixture", MILLION, 4_000, 50, k=1, wanted=1.6),
    Case("k = 100", "mixture", MILLION, 4_000, 50, k=100, wanted=2.3),
    Case("identical references", "mixture", 200_000, 2_000, 50, peers=(), orders=("identical",)),
    Case("others, exact", "mixture", 200_000, 3_000, 50, peers=("faiss", "sklearn", "usearch")),
    Case(
        "others, approximate",
        "mnist",
        60_000,
        10_000,
        50,
        peers=("hnswlib graph", "usearch graph", "pynndescent graph"),
        approximate=True,
    ),
]
BY_CLUSTER_LEAST = 0.8
IDENTICAL_MOST = 5

# Streaming: `search` of so many queries from zarr against references that stay in memory.
# In memory they are searched in batches as large as the units that `search` works in.
STREAM = Case("streaming", "mixture", 20_000, 2_000_000, 50, batch=131_072, peers=())
STREAM_MOST = 1.15
# CPU time over wall time, per thread.
STREAM_BUSY = 0.9


@dataclass(frozen=True)
class Inverted:
    """Search through an inverted file: queries/s at recalls that all sides reach."""

    name: str
    data: str
    rows: int
    queries: int
    dim: int
    lists: int
    # Numbers of lists that a query visits: their recalls surround those that are asked for.
    probes: tuple
    k: int = 30
    peers: tuple = ("faiss", "ann-search-rs")
    batch = None

    def small(self):
        values = self.__dict__ | {"rows": 20_000, "queries": 500, "lists": 100, "probes": (1, 2, 5, 20, 50)}
        return Inverted(**values)


INVERTED = [
    Inverted("ivf-GloVe-50", "words", 331_479, 10_000, 50, 1_200, (16, 32, 48, 64, 96, 128)),
    Inverted("ivf-mixture", "mixture", MILLION, 10_000, 50, 2_000, (4, 6, 8, 16, 24, 32)),
]
RECALLS = (0.95, 0.99)
# Queries/s over those of the faster peer, building time over that of faiss, and recall below that of faiss.
INVERTED_LEAST = 1.5
BUILD_MOST = 1.2
RECALL_LESS_MOST = 0.01


@dataclass(frozen=True)
class Bounds:
    """An exact search through an index, held against one without."""

    name: str
    data: str
    rows: int
    queries: int
    dim: int
    k: int = 30

    def small(self):
        return Bounds(**self.__dict__ | {"rows": 20_000, "queries": 500})


BOUNDS = [
    Bounds("bounds-MNIST-50", "mnist", 60_000, 10_000, 50),
    Bounds("bounds-GloVe-50", "words", 331_479, 10_000, 50),
    Bounds("bounds-mixture", "mixture", MILLION, 10_000, 50),
]


@dataclass(frozen=True)
class Atlas:
    """A reference out of core: indexed and searched within a budget, with each encoding."""

    name: str
    rows: int
    queries: int
    dim: int
    memory: str
    encodings: tuple = ("f32", "f16", "sq8", "pq")
    k: int = 30

    def small(self):
        return Atlas(**self.__dict__ | {"rows": 200_000, "queries": 1_000})


ATLASES = [
    Atlas("atlas-2M", 2_000_000, 20_000, 50, "1GiB"),
    Atlas("atlas-20M", 20_000_000, 100_000, 50, "1GiB"),
]
# Peak resident memory: the budget and 128 MiB. Bytes read over those of the plan, recall, and what encodings may lose of it.
ATLAS_BYTES_MOST = (1 << 30) + (128 << 20)
ATLAS_READ_MOST = 1.2
ATLAS_RECALL_LEAST = 0.99
ATLAS_LOSS_MOST = 0.002


@dataclass(frozen=True)
class SelfMapping:
    """Every row's neighbours among all others."""

    name: str
    data: str
    rows: int
    queries: int
    dim: int
    k: int = 30
    peers: tuple = ("pynndescent 0.6.0", "pynndescent 0.7.0")

    def small(self):
        return SelfMapping(**self.__dict__ | {"rows": 20_000, "queries": 500})


SELF = SelfMapping("self", "mixture", MILLION, 10_000, 50)
# How many times as fast as which.
SELF_LEAST, SELF_PEER = 4, SELF.peers[0]
