"""Uploaded files: `/v1/files`. Their bytes go to disk as they come and are hashed on the way; they lie under the file's
id, and the name that they came with is nothing but a text. Results of jobs are files, too, made when they are read.
"""

import contextlib
import hashlib
import os
import secrets
import time
from typing import Any, BinaryIO

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response

from engine.base.atomic_files import sync_folder
from engine.serve.api_errors import ApiError, invalid, not_found, unsupported
from engine.serve.context import Context, context_of, in_thread
from engine.serve.pages import page
from engine.serve.results import RESULTS, finished_run, result_file, result_rows
from engine.store.run_records import Run
from engine.store.serve_store import StoredFile

MOST_BYTES = 512 * 2**20
PURPOSES = frozenset({"assistants", "batch", "fine-tune", "vision", "user_data", "evals"})
_MOST_FIELD_BYTES = 4096
_MOST_LISTED = 10_000


def file_object(file: StoredFile) -> dict[str, Any]:
    """As the API shows it."""
    shown = {
        "id": file.id,
        "object": "file",
        "bytes": file.bytes,
        "created_at": file.created,
        "filename": file.filename,
        "purpose": file.purpose,
        "status": "processed",
        "status_details": None,
    }
    return shown | ({"expires_at": file.expires} if file.expires else {})


async def create_file(request: Request) -> Response:
    """POST /v1/files: multipart, with the fields `purpose` and `file`."""
    context = context_of(request)
    file_id = f"file-{secrets.token_hex(12)}"
    partial = context.file_path(f".{file_id}.part")
    upload = _Upload(request.headers.get("content-type", ""), partial)
    try:
        async for chunk in request.stream():
            if chunk:
                await in_thread(upload.write, chunk)
        upload.finish()
        purpose = upload.fields.get("purpose", "")
        if not purpose:
            raise ApiError(400, "'purpose' is missing.", code="missing_required_parameter", param="purpose")
        if purpose not in PURPOSES:
            raise invalid("purpose", f"'purpose' must be one of {', '.join(sorted(PURPOSES))}.")
        expires = _expiry(upload.fields)
        if unknown := sorted(upload.fields.keys() - {"purpose", "expires_after[anchor]", "expires_after[seconds]"}):
            raise unsupported(unknown[0][:100], f"Unsupported parameter: '{unknown[0][:100]}'.")
        if upload.filename is None:
            raise ApiError(400, "'file' is missing.", code="missing_required_parameter", param="file")
        if not upload.size:
            raise invalid("file", "The file is empty.", "empty_file")
        stored = StoredFile(
            file_id, int(time.time()), upload.size, upload.filename, purpose, upload.digest.hexdigest(), expires
        )
        os.replace(partial, context.file_path(file_id))
        await in_thread(sync_folder, context.files)
        context.store.add_file(stored)
    except OSError as error:
        raise ApiError(507, f"The file cannot be kept: {error.strerror}.", code="no_space") from None
    finally:
        upload.close()
        with contextlib.suppress(OSError):
            partial.unlink()
    await in_thread(_remove_expired, context)
    return JSONResponse(file_object(stored))


def _expiry(fields: dict[str, str]) -> int | None:
    anchor, seconds = fields.get("expires_after[anchor]"), fields.get("expires_after[seconds]")
    if anchor is None and seconds is None:
        return None
    if anchor != "created_at":
        raise invalid("expires_after[anchor]", "'expires_after[anchor]' must be created_at.")
    if not (seconds or "").isdecimal() or not 3600 <= int(seconds or 0) <= 2_592_000:
        raise invalid("expires_after[seconds]", "'expires_after[seconds]' must be between 3600 and 2592000.")
    return int(time.time()) + int(seconds or 0)


def _remove_expired(context: Context) -> None:
    for file_id in context.store.expired_files():
        _remove(context, file_id)


def _remove(context: Context, file_id: str) -> bool:
    """A run that trains on it has its own hold on the bytes."""
    removed = context.store.remove_file(file_id)
    with contextlib.suppress(OSError):
        context.file_path(file_id).unlink()
    return removed


async def list_files(request: Request) -> Response:
    """GET /v1/files."""
    context = context_of(request)
    purpose = request.query_params.get("purpose")
    files = [file_object(file) for file in await in_thread(context.store.files)]
    files = [file for file in files if purpose in (None, "", file["purpose"])]
    return page(request, files, default=_MOST_LISTED, most=_MOST_LISTED, ends=True, ordered=True)


async def retrieve_file(request: Request) -> Response:
    """GET /v1/files/{file}."""
    return JSONResponse(_known(context_of(request), request.path_params["file"]))


async def delete_file(request: Request) -> Response:
    """DELETE /v1/files/{file}."""
    context, file_id = context_of(request), request.path_params["file"]
    if not await in_thread(_remove, context, file_id):
        raise not_found("file", file_id, "file_id")
    return JSONResponse({"id": file_id, "object": "file", "deleted": True})


async def file_content(request: Request) -> Response:
    """GET /v1/files/{file}/content."""
    context, file_id = context_of(request), request.path_params["file"]
    if (run := _run_of_results(context, file_id)) is not None:
        return Response(await in_thread(result_rows, context, run.id), media_type="text/csv")
    path = context.file_path(file_id)
    if context.store.file(file_id) is None or not path.exists():
        raise not_found("file", file_id, "file_id")
    return FileResponse(
        path,
        media_type="application/octet-stream",
        headers={"x-content-type-options": "nosniff", "content-disposition": "attachment"},
        stat_result=os.stat(path),
    )


def _run_of_results(context: Context, file_id: str) -> Run | None:
    match = RESULTS.fullmatch(file_id)
    return finished_run(context, int(match["run"])) if match else None


def _known(context: Context, file_id: str) -> dict[str, Any]:
    if (run := _run_of_results(context, file_id)) is not None:
        return result_file(context, run)
    stored = context.store.file(file_id)
    if stored is None:
        raise not_found("file", file_id, "file_id")
    return file_object(stored)


class _Upload:
    """A multipart body on its way to disk."""

    def __init__(self, content_type: str, path: Any) -> None:
        _, options = parse_options_header(content_type.encode("latin-1"))
        boundary = options.get(b"boundary", b"")
        if not boundary or len(boundary) > 200:
            raise ApiError(400, "The multipart body has no boundary.", code="invalid_multipart")
        self.fields: dict[str, str] = {}
        self.filename: str | None = None
        self.size, self.digest = 0, hashlib.sha256()
        self._file: BinaryIO = open(path, "xb", opener=_private)  # noqa: SIM115, closed by `close`
        self._header, self._value = b"", b""
        self._disposition: dict[bytes, bytes] = {}
        self._field = b""
        self._is_file = self._ended = False
        self._parser = MultipartParser(
            boundary,
            {
                "on_part_begin": self._on_part_begin,
                "on_header_field": self._on_header_field,
                "on_header_value": self._on_header_value,
                "on_header_end": self._on_header_end,
                "on_headers_finished": self._on_headers_finished,
                "on_part_data": self._on_part_data,
                "on_part_end": self._on_part_end,
                "on_end": self._on_end,
            },
        )

    def write(self, chunk: bytes) -> None:
        if self.size > MOST_BYTES:
            raise ApiError(
                413, f"The file is larger than {MOST_BYTES // 2**20} MiB.", code="file_too_large", param="file"
            )
        try:
            self._parser.write(chunk)
        except FormParserError as error:
            raise ApiError(400, f"The multipart body cannot be read: {error}", code="invalid_multipart") from None

    def finish(self) -> None:
        if not self._ended:
            raise ApiError(400, "The multipart body ends before its last boundary.", code="invalid_multipart")
        self._file.flush()
        os.fsync(self._file.fileno())

    def close(self) -> None:
        self._file.close()

    def _on_part_begin(self) -> None:
        self._disposition, self._field = {}, b""

    def _on_header_field(self, data: bytes, start: int, end: int) -> None:
        if self._value:
            self._on_header_end()
        self._header += data[start:end]

    def _on_header_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def _on_header_end(self) -> None:
        if self._header.lower() == b"content-disposition":
            _, self._disposition = parse_options_header(self._value)
        self._header, self._value = b"", b""

    def _on_headers_finished(self) -> None:
        self._is_file = self._disposition.get(b"name") == b"file"
        if self._is_file:
            if self.filename is not None:
                raise invalid("file", "There is more than one 'file'.")
            name = self._disposition.get(b"filename", b"file").decode("utf-8", "replace")
            self.filename = name[:255] or "file"

    def _on_part_data(self, data: bytes, start: int, end: int) -> None:
        if self._is_file:
            self.size += end - start
            piece = memoryview(data)[start:end]
            self.digest.update(piece)
            self._file.write(piece)
        else:
            self._field += data[start:end]
            if len(self._field) > _MOST_FIELD_BYTES or len(self.fields) > 16:
                raise ApiError(400, "A field of the form is too long.", code="invalid_multipart")

    def _on_part_end(self) -> None:
        if not self._is_file:
            name = self._disposition.get(b"name", b"").decode("utf-8", "replace")[:100]
            self.fields[name] = self._field.decode("utf-8", "replace")

    def _on_end(self) -> None:
        self._ended = True


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)
