"""Readers of foreign files in processes of their own, with limits on memory, time and output.

A library that parses a file from elsewhere may crash, hang or allocate without end. A task is a
function ``task(peer, file, arguments)`` that runs in a child: forked from a warm server on Linux
(`server`), a new process elsewhere. The parent asks it for values (`client`). Messages are a JSON
header and raw bytes (`messages`), so the parent never unpickles what a child returns.
"""

from mmkgc_cli.state.sandbox.client import Limits, Session, close, start_server
from mmkgc_cli.state.sandbox.messages import Message, Peer

__all__ = ["Limits", "Message", "Peer", "Session", "close", "start_server"]
