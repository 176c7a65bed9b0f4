"""The figures that Prometheus reads."""

from __future__ import annotations

from collections.abc import Iterable

from prometheus_client import CollectorRegistry, Counter, Histogram, PlatformCollector, ProcessCollector
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.metrics_core import Metric

from img2seq.serving.worker import Job, Worker

SECONDS = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30, 60)


class Figures:
    """Counters and histograms of one server."""

    def __init__(self, worker: Worker):
        self.registry = registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        PlatformCollector(registry=registry)
        registry.register(_Queue(worker))
        self.requests = Counter(
            "img2seq_requests", "Requests answered, by route and status", ["route", "status"], registry=registry
        )
        self.latency = Histogram(
            "img2seq_request_seconds", "From first to last byte", ["route"], buckets=SECONDS, registry=registry
        )
        self.pictures = Counter("img2seq_pictures", "Pictures captioned, by run", ["model"], registry=registry)
        self.batches = Histogram(
            "img2seq_batch_pictures", "Pictures captioned together", buckets=(1, 2, 4, 8, 16, 32, 64), registry=registry
        )
        self.waiting = Histogram(
            "img2seq_queue_seconds", "A picture waited for the model", buckets=SECONDS, registry=registry
        )
        self.captioning = Histogram("img2seq_batch_seconds", "A batch took", buckets=SECONDS, registry=registry)
        worker.observe = self.observe_batch

    def observe_batch(self, batch: list[Job]) -> None:
        """Count a batch."""
        name = batch[0].key[0]  # type: ignore[index]
        self.batches.observe(len(batch))
        self.captioning.observe(batch[0].took_s)
        self.pictures.labels(name).inc(len(batch))
        for job in batch:
            self.waiting.observe(job.waited_s)

    def observe_request(self, route: str, status: int, seconds: float) -> None:
        """Count a request."""
        self.requests.labels(route, str(status)).inc()
        self.latency.labels(route).observe(seconds)


class _Queue:
    """Reads the queue when it is asked."""

    def __init__(self, worker: Worker):
        self._worker = worker

    def collect(self) -> Iterable[Metric]:
        """Return what the queue holds and whether the server is ready."""
        yield GaugeMetricFamily("img2seq_queue_pictures", "Places taken in the queue", self._worker.n_waiting)
        yield GaugeMetricFamily("img2seq_queue_limit", "Places in the queue", self._worker.limits.max_queue)
        yield GaugeMetricFamily("img2seq_ready", "Whether captions are to be had", float(self._worker.state == "ready"))
