"""Matching how rows lie to each other, rather than where each lies.

Distances and angles do not depend on the coordinates, so the two spaces may differ in width and
no adapter is learned. They need embeddings of a white-box teacher: a public model on the server,
or the uncompressed student, never a site's teacher.

No gradient reaches the teacher; `alignment_loss` has two students.
"""

import torch
from torch import Tensor
from torch.nn import functional


def distance_error(student: Tensor, teacher: Tensor) -> Tensor:
    """Mean over pairs of rows of Huber(d_student, d_teacher), distances as shares of their mean.

    Distance-wise relational distillation: Park et al. 2019, "Relational Knowledge Distillation",
    section 3.2.1. Huber's threshold is 1. Zero for fewer than two rows.

    Args:
        student: Embeddings (batch, width).
        teacher: Embeddings (batch, other width).
    """
    if len(student) < 2:
        return student.sum() * 0
    mine, theirs = _relative_distances(student), _relative_distances(teacher.detach())
    return functional.huber_loss(mine, theirs)


def angle_error(student: Tensor, teacher: Tensor) -> Tensor:
    """Mean over ordered triples of distinct rows of Huber(cos_student, cos_teacher).

    cos of (i, j, k) is that of the angle at j, between i - j and k - j. Angle-wise relational
    distillation: Park et al. 2019, section 3.2.2. Huber's threshold is 1. Takes memory of
    batch^3. Zero for fewer than three rows.

    Args:
        student: Embeddings (batch, width).
        teacher: Embeddings (batch, other width).
    """
    batch = len(student)
    if batch < 3:
        return student.sum() * 0
    total = functional.huber_loss(_cosines(student), _cosines(teacher.detach()), reduction="sum")
    # Triples that repeat a row have equal cosines, 0 or 1, on both sides, and add nothing.
    return total / (batch * (batch - 1) * (batch - 2))


def alignment_loss(one: Tensor, other: Tensor, *, temperature: float = 0.07) -> Tensor:
    """Contrastive alignment of two views or modalities of the same rows (InfoNCE, both ways).

    Mean of the cross-entropy of finding row i's partner among all rows of `other`, and of the
    same with the sides exchanged; logits are cosines over the temperature. Radford et al. 2021,
    "Learning Transferable Visual Models From Natural Language Supervision" (CLIP), section 2.3.
    log(batch) when nothing is aligned.

    Args:
        one: Embeddings (batch, width).
        other: Embeddings (batch, width), row by row the partners of `one`.
        temperature: Above 0.
    """
    cosines = functional.normalize(one, dim=1) @ functional.normalize(other, dim=1).T
    partner = torch.arange(len(one), device=one.device)
    there = functional.cross_entropy(cosines / temperature, partner)
    back = functional.cross_entropy(cosines.T / temperature, partner)
    return (there + back) / 2


def _relative_distances(embeddings: Tensor) -> Tensor:
    """Distances of all pairs over their mean, (num_pairs,); all zero if all rows are equal."""
    distances = functional.pdist(embeddings)
    return distances / distances.mean().clamp_min(torch.finfo(distances.dtype).tiny)


def _cosines(embeddings: Tensor) -> Tensor:
    """(batch, batch, batch): at [j, i, k] the cosine of the angle at j between i and k."""
    directions = functional.normalize(embeddings[None] - embeddings[:, None], dim=2)
    return directions @ directions.transpose(1, 2)
