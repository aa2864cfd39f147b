"""What a teacher learns from: the columns of a table, or what a public encoder makes of them.

Each row is seen alone, elementwise or by the encoder, so that its columns depend on that record and
on public state alone (PRIVACY rule 8), to the last bit.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from fedistill.data import ProxySet
from fedistill.features.embedding_map import EmbeddingMap
from fedistill.features.encoders import RowEncoder
from fedistill.features.expansion import Expansion
from fedistill.features.proxy_basis import proxy_basis

Rows = npt.NDArray[np.float32]

_LARGEST = float(np.finfo(np.float32).max)


@dataclass(frozen=True)
class TeacherColumns:
    """Raw rows to the columns that a teacher learns.

    Attributes:
        source: Categories to 0/1 columns; or rows to embeddings, where the proxy set has an
            encoder.
    """

    source: Expansion | RowEncoder

    @classmethod
    def of(cls, proxy: ProxySet) -> "TeacherColumns":
        """Those of a proxy set; its encoder is loaded once a process.

        Raises:
            PolicyRefusal: The encoder cannot be used; see `row_encoder`.
        """
        if proxy.encoder is None:
            return cls(Expansion.of(proxy.schema))
        fitted = proxy_basis(proxy).map
        if not isinstance(fitted, EmbeddingMap):
            raise TypeError(f"a proxy set with an encoder must not have a {type(fitted).__name__}")
        return cls(fitted.encoder)

    def transform(self, rows: Rows) -> Rows:
        """Columns (num_rows, num_teacher_columns) float32 of raw rows (num_rows, num_columns).

        NaN where a table has no value; of a row without an embedding all are NaN. An embedding
        beyond float32 is taken as the largest that it holds.
        """
        if isinstance(self.source, Expansion):
            return self.source.transform(rows)
        return np.clip(self.source.embed(rows), -_LARGEST, _LARGEST).astype(np.float32)

    def readable(self, rows: Rows) -> npt.NDArray[np.bool_]:
        """(num_rows,) whether there is anything to learn from: False without an embedding.

        A table's row always is readable, whatever it lacks.
        """
        if isinstance(self.source, Expansion):
            return np.ones(len(rows), dtype=np.bool_)
        return np.asarray(np.isfinite(self.source.embed(rows)).all(axis=1), dtype=np.bool_)
