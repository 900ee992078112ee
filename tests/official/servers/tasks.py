"""A replica with tasks, written with the official Python SDK 2.x, for the suite's `tasks-*` scenarios.

The everything-server has no tasks, so without this nothing official would show that a task finds its maker
again. Task ids and the key that seals `requestState` belong to one process: asked at another replica, both are
unknown. Usage: python tasks.py --port N
"""

import argparse
import asyncio
import contextlib
import uuid
from datetime import datetime, timezone

import mcp.types as types
from mcp.server.extension import Extension, MethodBinding, ToolBinding
from mcp.server.mcpserver import Context, MCPServer, require_client_extension
from mcp.shared.exceptions import MCPError
from pydantic import Field

EXTENSION = "io.modelcontextprotocol/tasks"
HEADER_MISMATCH = -32020
VERSIONS = frozenset({"2026-07-28"})


class Task:
    """One running tool. Its members are what tasks/get says of it."""

    def __init__(self, work):
        self.id = str(uuid.uuid4())
        self.status = "working"
        self.created = self.updated = now()
        self.outcome = {}
        self.questions = {}
        self.answers = {}
        self.answered = asyncio.Event()
        self.runner = asyncio.create_task(self._run(work))

    async def _run(self, work):
        try:
            self._become("completed", result=await work(self))
        except asyncio.CancelledError:
            self._become("cancelled")
        except Exception as error:
            self._become("failed", error={"code": types.INTERNAL_ERROR, "message": str(error)})

    def _become(self, status, **outcome):
        self.status, self.updated, self.outcome = status, now(), outcome

    async def ask(self, *questions):
        """Parks the task until the client has answered every question."""
        self.questions = {f"question-{number}": elicitation(text) for number, text in enumerate(questions)}
        self._become("input_required")
        await self.answered.wait()
        self._become("working")
        return self.answers

    def answer(self, responses):
        for key in self.questions.keys() & responses.keys():
            self.answers[key] = responses[key]
            del self.questions[key]
        if self.status == "input_required" and not self.questions:
            self.answered.set()

    def summary(self):
        stamps = {"createdAt": self.created, "lastUpdatedAt": self.updated}
        return {"taskId": self.id, "status": self.status, **stamps, "ttlMs": 300_000, "pollIntervalMs": 100}

    def detail(self):
        parked = {"inputRequests": self.questions} if self.status == "input_required" else {}
        return {**self.summary(), **self.outcome, **parked}


def now():
    return datetime.now(timezone.utc).isoformat()


def elicitation(text):
    schema = {"type": "object", "properties": {"confirm": {"type": "boolean"}}}
    return {"method": "elicitation/create", "params": {"message": text, "requestedSchema": schema}}


def said(text, **more):
    return {"content": [{"type": "text", "text": text}], **more}


def work_of(name, arguments):
    """What a task-supporting tool does, as a coroutine function over its task; None for other tools."""

    async def slow_compute(_task):
        await asyncio.sleep(arguments.get("seconds", 0))
        return said(f"computed {arguments.get('label', '')}")

    async def failing_job(_task):
        await asyncio.sleep(0.3)
        return said("the job failed", isError=True)

    async def protocol_error_job(_task):
        raise RuntimeError("the job broke")

    async def confirm_delete(task):
        return said(f"answered {list((await task.ask('Really?')).values())}")

    async def multi_input(task):
        return said(f"answered {sorted(await task.ask('First?', 'Second?'))}")

    tools = (slow_compute, failing_job, protocol_error_job, confirm_delete, multi_input)
    return next((tool for tool in tools if tool.__name__ == name), None)


class TaskParams(types.RequestParams):
    task_id: str = Field(alias="taskId")
    input_responses: dict = Field(default={}, alias="inputResponses")


class Tasks(Extension):
    """The methods of SEP-2663, and a task in the place of a tool's result."""

    identifier = EXTENSION

    def __init__(self):
        self.tasks = {}

    def tools(self):
        names = ("slow_compute", "failing_job", "protocol_error_job", "confirm_delete", "multi_input")
        return [ToolBinding(fn=never_run, kwargs={"name": name, "description": name}) for name in names]

    def methods(self):
        served = {"tasks/get": self.get, "tasks/update": self.update, "tasks/cancel": self.cancel}
        return [MethodBinding(name, TaskParams, handler, VERSIONS) for name, handler in served.items()]

    async def intercept_tool_call(self, params, ctx, call_next):
        if params.name == "test_tool_with_task" and params.input_responses:
            answer = next(iter(params.input_responses.values()))
            # The SDK checks requestState before this: only its maker knows the key.
            return self._create(lambda _task: asyncio.sleep(0.1, said(f"Hello, {answer.content['name']}")))
        work = work_of(params.name, params.arguments or {})
        if work is None:
            return await call_next(ctx)
        if not declares_tasks(ctx) and params.name == "slow_compute":
            return {"resultType": "complete", **await work(None)}
        require_client_extension(ctx, EXTENSION)
        return self._create(work)

    def _create(self, work):
        task = Task(work)
        self.tasks[task.id] = task
        return {"resultType": "task", **task.summary()}

    def _find(self, ctx, params):
        require_client_extension(ctx, EXTENSION)
        if ctx.request.headers.get("mcp-name") != params.task_id:
            raise MCPError(code=HEADER_MISMATCH, message="Mcp-Name and params.taskId differ")
        if params.task_id not in self.tasks:
            raise MCPError(code=types.INVALID_PARAMS, message="no such task at this replica")
        return self.tasks[params.task_id]

    async def get(self, ctx, params):
        return self._find(ctx, params).detail()

    async def update(self, ctx, params):
        self._find(ctx, params).answer(params.input_responses)
        return {}

    async def cancel(self, ctx, params):
        task = self._find(ctx, params)
        task.runner.cancel()
        await asyncio.wait([task.runner])
        return {}


def declares_tasks(ctx):
    with contextlib.suppress(MCPError):
        require_client_extension(ctx, EXTENSION)
        return True
    return False


def never_run() -> str:
    raise AssertionError("the extension answers before the tool runs")


mcp = MCPServer("official-tasks", extensions=[Tasks()])


@mcp.tool()
def greet(name: str) -> str:
    """Greets at once."""
    return f"Hello, {name}!"


@mcp.tool()
def test_tool_with_task(ctx: Context) -> types.InputRequiredResult:
    """Asks for a name first; the answer becomes a task."""
    schema = {"type": "object", "properties": {"name": {"type": "string"}}, "required": ["name"]}
    question = types.ElicitRequestFormParams(message="What is your name?", requested_schema=schema)
    return types.InputRequiredResult(
        input_requests={"user_name": types.ElicitRequest(params=question)}, request_state="asked"
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, required=True)
    mcp.run(transport="streamable-http", port=parser.parse_args().port)
