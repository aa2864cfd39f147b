"""What our training of image students costs beside the loop that one would write by hand.

    python -m benchmarks.image_throughput --device cuda

Both train the same network on the same images and soft labels, under the same moved views, with
AdamW in batches of 256; on a GPU both run in bfloat16. The plain loop has nothing else. Ours is
`distil_images` as runs have it, with its schedule, its average of the weights, and its BatchNorm
set at the end. They take turns, and each figure is the median of `--repeats` turns after one to
warm up.
"""

import argparse
import statistics
import time
from collections.abc import Callable

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from fedistill.distill.image_trainer import ImageRecipe, distil_images
from fedistill.distill.networks import NETWORKS
from fedistill.distill.training import TARGET_POWER
from fedistill.features.affine import MODERATE, random_affine
from fedistill.features.images import ImageShape

CLASSES = 10
SHAPE = ImageShape(channels=1, side=28)


def plain_loop(
    student: nn.Module, images: Tensor, targets: Tensor, *, epochs: int, device: str
) -> None:
    """The student fitted in place, as one would write it."""
    layout = torch.channels_last if device == "cuda" else torch.contiguous_format
    student.to(device).to(memory_format=layout).train()  # type: ignore[call-overload]
    images, targets = images.to(device), targets.to(device)
    recipe = ImageRecipe()
    optimizer = torch.optim.AdamW(
        student.parameters(), lr=recipe.learning_rate, weight_decay=recipe.weight_decay
    )
    generator = torch.Generator().manual_seed(0)
    for _ in range(epochs):
        order = torch.randperm(len(images), generator=generator).to(device)
        for chosen in torch.split(order, recipe.batch)[: len(images) // recipe.batch]:
            views = random_affine(images[chosen], MODERATE, generator)
            with torch.autocast(device, torch.bfloat16, enabled=device == "cuda"):
                logits = student(views)
            loss = cross_entropy(logits.float(), targets[chosen])
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()


def images_per_second(
    train: Callable[[nn.Module], None], name: str, *, num_images: int, device: str
) -> float:
    """One training of a fresh network, in images seen each second."""
    torch.manual_seed(0)
    student = NETWORKS[name](SHAPE, CLASSES)
    begun = time.perf_counter()
    train(student)
    if device == "cuda":
        torch.cuda.synchronize()
    return num_images / (time.perf_counter() - begun)


def compare(
    name: str, *, num_images: int, epochs: int, repeats: int, device: str
) -> tuple[float, float]:
    """Images a second of ours and of the plain loop."""
    random = torch.Generator().manual_seed(0)
    images = torch.rand(num_images, SHAPE.channels, SHAPE.side, SHAPE.side, generator=random)
    targets = torch.rand(num_images, CLASSES, generator=random).softmax(dim=1)

    recipe = ImageRecipe(epochs=epochs, self_training=0, target_power=TARGET_POWER)

    def ours(student: nn.Module) -> None:
        distil_images(student, images, targets, seed=0, recipe=recipe, device=device)

    def plain(student: nn.Module) -> None:
        plain_loop(student, images, targets, epochs=epochs, device=device)

    found: dict[Callable[[nn.Module], None], list[float]] = {ours: [], plain: []}
    for turn in range(repeats + 1):
        for train, speeds in found.items():
            speed = images_per_second(train, name, num_images=epochs * num_images, device=device)
            if turn > 0:
                speeds.append(speed)
    return statistics.median(found[ours]), statistics.median(found[plain])


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--students", nargs="+", default=["cnn", "resnet"], choices=list(NETWORKS))
    parser.add_argument("--images", type=int, default=9_000)
    parser.add_argument("--epochs", type=int, default=10, help="of each training")
    parser.add_argument("--repeats", type=int, default=3, help="trainings of either kind")
    arguments = parser.parse_args()
    table = Table("student", "ours, images/s", "plain loop, images/s", "ratio", box=None)
    for name in arguments.students:
        ours, plain = compare(
            name,
            num_images=arguments.images,
            epochs=arguments.epochs,
            repeats=arguments.repeats,
            device=arguments.device,
        )
        table.add_row(name, f"{ours:,.0f}", f"{plain:,.0f}", f"{ours / plain:.2f}")
    Console(highlight=False, width=100).print(table)


if __name__ == "__main__":
    main()
