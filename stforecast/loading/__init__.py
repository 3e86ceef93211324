"""From history to batches on the device."""

from __future__ import annotations

from .base import Feed, Windows
from .feeds import ResidentFeed, StreamingFeed, open_feed, suited
from .source import Source

__all__ = ["Feed", "ResidentFeed", "Source", "StreamingFeed", "Windows", "open_feed", "suited"]
