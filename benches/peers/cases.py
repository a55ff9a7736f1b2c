"""What is measured. The ratios wanted are the least that a change may leave."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Case:
    name: str
    data: str
    rows: int
    queries: int
    dim: int
    k: int = 30
    batch: int | None = None
    order: str = "shuffled"
    # Other libraries, each beside atlasknn on the best instructions there are.
    peers: tuple = ("faiss",)
    # Whether both sides run on AVX2 as well.
    avx2: bool = True
    # The least ratio to faiss that is wanted.
    wanted: float | None = None
    approximate: bool = False

    def small(self):
        """The same for a smoke run."""
        rows, queries = min(self.rows, 20_000), min(self.queries, 500)
        batch = 100 if self.batch else None
        values = self.__dict__ | {"rows": rows, "queries": queries, "batch": batch}
        return Case(**values)


MILLION = 1_000_000

CASES = [
    Case("mixture", "mixture", MILLION, 10_000, 50, peers=("faiss", "sgemm"), wanted=2.3),
    Case("GloVe-50", "words", 331_479, 10_000, 50, wanted=2.5),
    Case("MNIST-50", "mnist", 60_000, 10_000, 50, wanted=3),
    Case("a batch of 1,000", "mixture", MILLION, 1_000, 50, wanted=10),
    Case("d = 10", "mixture", MILLION, 2_000, 10, wanted=10),
    Case("d = 30", "mixture", MILLION, 2_000, 30, wanted=3),
    Case("d = 128", "mixture", 200_000, 5_000, 128, wanted=1.25),
    Case("d = 784", "mixture", 60_000, 4_000, 784, wanted=1.25),
    Case("d = 784, digits", "mnist", 60_000, 4_000, 784, wanted=1.25),
    Case("k = 1", "mixture", MILLION, 2_000, 50, k=1, wanted=1.6),
    Case("k = 100", "mixture", MILLION, 2_000, 50, k=100, wanted=2.3),
    Case("sorted by cluster", "mixture", MILLION, 10_000, 50, order="by cluster", peers=(), avx2=False),
    Case("200,000 random", "mixture", 200_000, 2_000, 50, peers=(), avx2=False),
    Case("200,000 identical", "mixture", 200_000, 2_000, 50, order="identical", peers=(), avx2=False),
    Case("others, exact", "mixture", 200_000, 1_000, 50, peers=("faiss", "sklearn", "usearch"), avx2=False),
    Case(
        "others, approximate",
        "mnist",
        60_000,
        10_000,
        50,
        peers=("hnswlib graph", "usearch graph", "pynndescent graph"),
        avx2=False,
        approximate=True,
    ),
]

# Streaming: `search` of so many queries from zarr against references that stay in memory.
# In memory they are searched in batches as large as the units that `search` works in.
STREAM = Case("streaming", "mixture", 20_000, 2_000_000, 50, batch=131_072, peers=(), avx2=False)
STREAM_MOST = 1.15
