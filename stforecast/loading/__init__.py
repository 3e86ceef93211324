"""From history to batches on the device."""

from __future__ import annotations

from .base import Feed
from .feeds import ResidentFeed, StreamingFeed, open_feed, suited
from .source import Source

__all__ = ["Feed", "ResidentFeed", "Source", "StreamingFeed", "open_feed", "suited"]
