"""`pie lsp` in Neovim itself, without a screen. Left out where there is none of 0.11 or later: `PIE_NVIM`, what
scripts/editors/fetch.sh gets, or `nvim` on the path."""

import json
import os
import random
import re
import shutil
import subprocess

import pytest
from pool import binary, environment, until
from terminal import EDITORS
from test_lsp import held, sessions

FETCHED = EDITORS / "nvim"
NVIM = os.environ.get("PIE_NVIM") or (str(FETCHED) if FETCHED.is_file() else shutil.which("nvim"))
# What docs/editors.md tells people to write, then what they would do.
SCRIPT = """
local work = vim.json.decode(vim.fn.readfile(vim.env.WORK)[1])
vim.lsp.config('pie', {
  cmd = work.cmd,
  root_markers = { '.git' },
  settings = { pie = { maxLines = 0, maxTokens = 12 } },
  -- Of 0.12 on it shows suggestions in grey, and would have none in its list.
  init_options = { pie = { ordinaryCompletion = 'always' } },
})
vim.lsp.enable('pie')
vim.cmd('filetype on')
vim.cmd.edit(work.file)
assert(vim.wait(10000, function() return #vim.lsp.get_clients({ name = 'pie', bufnr = 0 }) == 1 end), 'it is attached')
for _, edit in ipairs(work.edits) do
  local last = vim.api.nvim_buf_line_count(0)
  local row = math.min(edit.row, last - 1)
  local line = vim.api.nvim_buf_get_lines(0, row, row + 1, false)[1]
  local column = vim.str_byteindex(line, 'utf-32', math.min(edit.column, vim.str_utfindex(line, 'utf-32')))
  vim.api.nvim_buf_set_text(0, row, column, row, column, vim.split(edit.text, '\\n'))
  if edit.delete then vim.api.nvim_buf_set_lines(0, row, row + 1, false, {}) end
  vim.wait(5)
end
local client = vim.lsp.get_clients({ name = 'pie', bufnr = 0 })[1]
local row = vim.api.nvim_buf_line_count(0)
vim.api.nvim_win_set_cursor(0, { math.floor(row / 2), 0 })
local params = vim.lsp.util.make_position_params(0, client.offset_encoding)
local answer
-- A busy machine may take longer than the server lets anybody wait.
for _ = 1, 20 do
  answer = client:request_sync('textDocument/completion', params, 20000, 0)
  if answer and answer.result then break end
end
local lines = table.concat(vim.api.nvim_buf_get_lines(0, 0, -1, false), '\\n') .. '\\n'
vim.fn.writefile({ vim.json.encode({ answer = answer, text = lines }) }, work.result)
assert(vim.wait(20000, function() return vim.uv.fs_stat(work.done) ~= nil end), 'the test has looked')
vim.cmd('qall!')
"""


def version() -> tuple[int, int]:
    if not NVIM:
        return (0, 0)
    said = subprocess.run([NVIM, "--version"], capture_output=True, text=True, timeout=20, check=True).stdout
    found = re.search(r"NVIM v(\d+)\.(\d+)", said)
    return (int(found[1]), int(found[2])) if found else (0, 0)


@pytest.mark.skipif(version() < (0, 11), reason="no Neovim of 0.11 or later")
def test_neovim_types_into_the_pool_and_gets_a_list(client, pool, cache, tmp_path):
    luck = random.Random(11)
    pieces = ["x", "let a = 🙂;", "日本\nzwei", "\n", "end"]
    edits = [
        {"row": luck.randrange(12), "column": luck.randrange(9), "text": luck.choice(pieces), "delete": luck.random() < 0.3}
        for _ in range(40)
    ]
    file, result, done = (tmp_path / name for name in ("main.rs", "result.json", "done"))
    file.write_text("fn main() {\n    let s = \"naïve 日本語 🙂\";\n}\n")
    work = {"cmd": [str(binary()), "lsp", "--pool", f"http://{pool.address}"], "file": str(file), "edits": edits}
    (tmp_path / "work.json").write_text(json.dumps(work | {"result": str(result), "done": str(done)}))
    (tmp_path / "script.lua").write_text(SCRIPT)
    homes = {f"XDG_{name}_HOME": str(tmp_path / name) for name in ("CONFIG", "DATA", "STATE")}
    nvim = subprocess.Popen(
        [NVIM, "--headless", "--clean", "-l", str(tmp_path / "script.lua")],
        env=environment(cache) | homes | {"WORK": str(tmp_path / "work.json")},
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        until("Neovim has its answer", lambda: result.exists() and result.stat().st_size or nvim.poll() is not None, 60)
        assert nvim.poll() is None, nvim.stderr.read()
        told = json.loads(result.read_text())
        until("the pool has the buffer's text", lambda: held(client, "main.rs") == told["text"])
        (item,) = told["answer"]["result"]["items"]
        assert item["textEdit"]["newText"] and item["label"], told
    finally:
        done.touch()
        assert nvim.wait(30) == 0
    until("the session is closed", lambda: not sessions(client, "main.rs"))
