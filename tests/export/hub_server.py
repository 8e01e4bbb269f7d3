"""A stand-in for the Hugging Face hub on this machine: the few calls an upload makes, and what it was sent."""

import base64
import hashlib
import json
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import yaml


class FakeHub(ThreadingHTTPServer):
    """Keeps what was committed; `private` are the repositories there are. Larger files are asked for as LFS objects."""

    def __init__(self, private: dict[str, bool], large_bytes: int = 4096):
        super().__init__(("127.0.0.1", 0), _Handler)
        self.private = private
        self.large_bytes = large_bytes
        self.address = f"http://127.0.0.1:{self.server_address[1]}"
        self.files: dict[str, bytes] = {}  # as committed, to whichever repository
        self.objects: dict[str, bytes] = {}  # LFS objects, by their SHA-256
        self.calls: list[tuple[str, str, str]] = []  # method, path, Authorization

    def __enter__(self):
        Thread(target=self.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_):
        self.shutdown()
        self.server_close()


class _Handler(BaseHTTPRequestHandler):
    server: FakeHub

    def log_message(self, *_):
        pass

    def do_HEAD(self):
        self._answer({})

    def do_GET(self):
        name = self.path.removeprefix("/api/models/")
        if name not in self.server.private:
            return self._answer({"error": "Entry not found"}, 404)
        return self._answer({"id": name, "private": self.server.private[name], "tags": [], "siblings": []})

    def do_PUT(self):
        content = self._body()
        self.server.objects[hashlib.sha256(content).hexdigest()] = content
        self._answer({})

    def do_POST(self):
        body = self._body()
        if self.path == "/api/repos/create":
            asked = json.loads(body)
            name = f"{asked['organization']}/{asked['name']}"
            is_there = name in self.server.private
            self.server.private.setdefault(name, bool(asked.get("private") or asked.get("visibility") == "private"))
            return self._answer({"url": f"{self.server.address}/{name}"}, 409 if is_there else 200)
        if self.path == "/api/validate-yaml":
            front = yaml.safe_load(json.loads(body)["content"].split("---")[1])
            return self._answer({"errors": [], "warnings": []}, 200 if isinstance(front, dict) else 400)
        if self.path.endswith("/preupload/main"):
            files = json.loads(body)["files"]
            kinds = ["lfs" if file["size"] >= self.server.large_bytes else "regular" for file in files]
            modes = [
                {"path": file["path"], "uploadMode": kind, "shouldIgnore": False}
                for file, kind in zip(files, kinds, strict=True)
            ]
            return self._answer({"files": modes})
        if self.path.endswith("/objects/batch"):
            objects = [
                {**entry, "actions": {"upload": {"href": f"{self.server.address}/objects/{entry['oid']}"}}}
                for entry in json.loads(body)["objects"]
            ]
            return self._answer({"transfer": "basic", "objects": objects})
        if "/commit/" in self.path:
            return self._commit([json.loads(line) for line in body.splitlines()])
        return self._answer({}, 404)

    def _commit(self, lines):
        for line in lines:
            value = line["value"]
            if line["key"] == "file":
                self.server.files[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                self.server.files[value["path"]] = self.server.objects[value["oid"]]
        address = f"{self.server.address}/ada/tuned/commit/{'0' * 40}"
        self._answer({"success": True, "commitOid": "0" * 40, "commitUrl": address, "hookOutput": ""})

    def _body(self) -> bytes:
        return self.rfile.read(int(self.headers["Content-Length"] or 0))

    def _answer(self, document, status: int = 200):
        self.server.calls.append((self.command, self.path, self.headers["Authorization"] or ""))
        content = json.dumps(document).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)
