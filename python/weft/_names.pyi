"""What type checkers make of asyncio's names beside Weft's own: the objects that asyncio exports.

`_names.__getattr__()` gives them to a program that runs; a test compares this list with asyncio's.
Names that are neither stay unknown to type checkers, and so do asyncio's deprecated ones.
"""

# ruff: noqa: I001 - one list, not one statement for each name

import sys
from asyncio import (
    ALL_COMPLETED as ALL_COMPLETED,
    FIRST_COMPLETED as FIRST_COMPLETED,
    FIRST_EXCEPTION as FIRST_EXCEPTION,
    AbstractEventLoop as AbstractEventLoop,
    AbstractServer as AbstractServer,
    BaseEventLoop as BaseEventLoop,
    BaseProtocol as BaseProtocol,
    BaseTransport as BaseTransport,
    BrokenBarrierError as BrokenBarrierError,
    BufferedProtocol as BufferedProtocol,
    CancelledError as CancelledError,
    DatagramProtocol as DatagramProtocol,
    DatagramTransport as DatagramTransport,
    IncompleteReadError as IncompleteReadError,
    InvalidStateError as InvalidStateError,
    LimitOverrunError as LimitOverrunError,
    Protocol as Protocol,
    QueueEmpty as QueueEmpty,
    QueueFull as QueueFull,
    ReadTransport as ReadTransport,
    SelectorEventLoop as SelectorEventLoop,
    SendfileNotAvailableError as SendfileNotAvailableError,
    Server as Server,
    SubprocessProtocol as SubprocessProtocol,
    SubprocessTransport as SubprocessTransport,
    TimeoutError as TimeoutError,
    Transport as Transport,
    WriteTransport as WriteTransport,
    _enter_task as _enter_task,
    _get_running_loop as _get_running_loop,
    _leave_task as _leave_task,
    _register_task as _register_task,
    _set_running_loop as _set_running_loop,
    _unregister_task as _unregister_task,
    all_tasks as all_tasks,
    base_events as base_events,
    coroutines as coroutines,
    create_subprocess_exec as create_subprocess_exec,
    create_subprocess_shell as create_subprocess_shell,
    current_task as current_task,
    events as events,
    exceptions as exceptions,
    futures as futures,
    get_event_loop as get_event_loop,
    get_event_loop_policy as get_event_loop_policy,
    get_running_loop as get_running_loop,
    iscoroutine as iscoroutine,
    iscoroutinefunction as iscoroutinefunction,
    isfuture as isfuture,
    locks as locks,
    protocols as protocols,
    queues as queues,
    run_coroutine_threadsafe as run_coroutine_threadsafe,
    runners as runners,
    selector_events as selector_events,
    set_event_loop as set_event_loop,
    set_event_loop_policy as set_event_loop_policy,
    sslproto as sslproto,
    streams as streams,
    subprocess as subprocess,
    taskgroups as taskgroups,
    tasks as tasks,
    threads as threads,
    timeouts as timeouts,
    transports as transports,
    unix_events as unix_events,
    wrap_future as wrap_future,
)
from collections.abc import Collection

def others(own: Collection[str]) -> list[str]: ...

if sys.version_info >= (3, 12):
    from asyncio import (
        create_eager_task_factory as create_eager_task_factory,
        eager_task_factory as eager_task_factory,
    )

if sys.version_info >= (3, 13):
    from asyncio import (
        EventLoop as EventLoop,
    )

if sys.version_info >= (3, 14):
    from asyncio import (
        FrameCallGraphEntry as FrameCallGraphEntry,
        FutureCallGraph as FutureCallGraph,
        capture_call_graph as capture_call_graph,
        format_call_graph as format_call_graph,
        future_add_to_awaited_by as future_add_to_awaited_by,
        future_discard_from_awaited_by as future_discard_from_awaited_by,
        print_call_graph as print_call_graph,
    )

else:
    from asyncio import (
        AbstractChildWatcher as AbstractChildWatcher,
        AbstractEventLoopPolicy as AbstractEventLoopPolicy,
        DefaultEventLoopPolicy as DefaultEventLoopPolicy,
        FastChildWatcher as FastChildWatcher,
        MultiLoopChildWatcher as MultiLoopChildWatcher,
        PidfdChildWatcher as PidfdChildWatcher,
        SafeChildWatcher as SafeChildWatcher,
        ThreadedChildWatcher as ThreadedChildWatcher,
        get_child_watcher as get_child_watcher,
        set_child_watcher as set_child_watcher,
    )
