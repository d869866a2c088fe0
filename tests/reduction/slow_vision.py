"""Slow versions of the methods before the language model: Python loops, one token at a time, from the cards."""

from __future__ import annotations

import torch
from torch import Tensor


def prumerge(x: Tensor, a: Tensor, keys: Tensor, centres: list[int], neighbours: int) -> Tensor:
    """One centre and one neighbour at a time, lists built as the card describes them."""
    n = len(x)
    rest = sorted(set(range(n)) - set(centres))
    rest = rest[len(rest) - max(n - len(centres), 0) :]

    def cosine(i, j):
        return float((keys[i] * keys[j]).sum() / (keys[i].norm() * keys[j].norm()))

    out = []
    for place, centre in enumerate(centres):
        others = centres[:place] + centres[place + 1 :] + rest
        near = sorted(others, key=lambda other: -cosine(centre, other))[:neighbours]
        out.append(x[centre] + sum(float(a[t]) * x[t] for t in near))
    return torch.stack([*out, sum(float(a[t]) * x[t] for t in rest)])


def visionzip(hidden: Tensor, metric: Tensor, dominant: set[int], contextual: int) -> Tensor:
    """Dominant positions ascending, then each target and the mean of those that joined it."""
    out = [hidden[p] for p in sorted(dominant)]
    pool = [p for p in range(len(hidden)) if p not in dominant]
    stride = max(1, len(pool) // contextual)
    targets = pool[::stride][:contextual]
    joined = {target: [] for target in targets}
    for p in pool:
        if p not in joined:
            cosines = [float((metric[p] * metric[t]).sum() / metric[p].norm() / metric[t].norm()) for t in targets]
            joined[targets[cosines.index(max(cosines))]].append(hidden[p])
    return torch.stack(out + [hidden[t] + (sum(more) / len(more) if more else 0) for t, more in joined.items()])


def tome(metric: Tensor, tokens: Tensor, sizes: Tensor | list[float], r: int) -> tuple[Tensor, list[float]]:
    """One pair at a time, [CLS] at 0."""
    n = len(tokens)
    even, odd = range(2, n, 2), list(range(1, n, 2))

    def cosine(a, b):
        return float((metric[a] * metric[b]).sum() / metric[a].norm() / metric[b].norm())

    partner = {a: max(odd, key=lambda b: cosine(a, b)) for a in even}
    merged = sorted(even, key=lambda a: -cosine(a, partner[a]))[: min(r, (n - 1) // 2)]
    out = []
    for p in [0, *(a for a in even if a not in merged), *odd]:
        group = [p, *(a for a in merged if partner[a] == p)]
        mass = sum(float(sizes[g]) for g in group)
        out.append((sum(float(sizes[g]) * tokens[g] for g in group) / mass, mass))
    return torch.stack([value for value, _ in out]), [mass for _, mass in out]


def ficoco_official(
    logits: Tensor, tokens: Tensor, buffer: list[float], side: tuple[int, int], r: int, beta: float, quantile: float
) -> Tensor:
    """One layer as released; `buffer` is changed in place."""
    n = len(tokens) - 1
    s = _redundancy(logits, beta)
    free = [cell for cell, value in enumerate(buffer) if value != float("inf")]
    for cell, score in zip(free, s, strict=False):
        buffer[cell] = score
    for top in range(0, side[0], 2):
        for left in range(0, side[1], 2):
            window = [row * side[1] + column for row in (top, top + 1) for column in (left, left + 1)]
            cell = min(window, key=lambda cell: (buffer[cell], cell))
            if cell < n:
                s[cell] = s[cell] / 2 if s[cell] > 0 else 2 * s[cell]
                buffer[cell] = float("inf")
    order = [1 + t for t in sorted(range(n), key=lambda t: s[t])] + [0]
    removed, left_over = order[:r], order[r:]
    bounds = [float(logits[t].quantile(quantile)) for t in removed]
    k = max(sum(float(x) > bound for x in logits[t]) for t, bound in zip(removed, bounds, strict=True))
    total, mass = tokens[left_over].clone(), [1.0] * len(left_over)
    for t in removed:
        probabilities = logits[t].softmax(0)
        best = sorted(range(n + 1), key=lambda u: -float(probabilities[u]))[:k]
        whole = sum(float(probabilities[u]) for u in best)
        for u in best:
            place = u - r if u >= len(left_over) else u
            total[place] += float(probabilities[u]) / whole * tokens[t]
            mass[place] += float(probabilities[u]) / whole
    return total / torch.tensor(mass)[:, None]


def ficoco_clean(
    logits: Tensor, tokens: Tensor, cells: list[int], side: tuple[int, int], r: int, beta: float, quantile: float
) -> tuple[list[int], Tensor]:
    """The paper's reading of one layer, one token at a time."""
    n = len(tokens) - 1
    s = _redundancy(logits, beta)
    windows = {}
    for t, cell in enumerate(cells):
        windows.setdefault((cell // side[1] // 2, cell % side[1] // 2), []).append(t)
    for members in windows.values():
        t = min(members, key=lambda t: s[t])
        s[t] = s[t] / 2 if s[t] > 0 else 2 * s[t]
    removed = sorted(range(n), key=lambda t: s[t])[:r]
    kept = [t for t in range(n) if t not in removed]
    total, mass = {t: tokens[1 + t].clone() for t in kept}, dict.fromkeys(kept, 1.0)
    for t in removed:
        row = torch.tensor([float(logits[1 + t, 1 + u]) for u in kept])
        bound = float(row.quantile(quantile))
        best = [i for i in range(len(kept)) if float(row[i]) > bound] or [int(row.argmax())]
        parts = torch.tensor([float(row[i]) for i in best]).softmax(0)
        for i, w in zip(best, parts, strict=True):
            total[kept[i]] += w * tokens[1 + t]
            mass[kept[i]] += float(w)
    return [0, *(1 + t for t in kept)], torch.stack([tokens[0], *(total[t] / mass[t] for t in kept)])


def _redundancy(logits: Tensor, beta: float) -> list[float]:
    n = len(logits) - 1
    a = [float(logits[0, 1 + t]) for t in range(n)]
    p = [sum(float(logits[1 + t, 1 + u]) for u in range(n)) / n for t in range(n)]
    lengths = [sum(x * x for x in part) ** 0.5 for part in (a, p)]
    return [beta * a[t] / lengths[0] - (1 - beta) * p[t] / lengths[1] for t in range(n)]
