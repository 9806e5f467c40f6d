# SPDX-License-Identifier: Apache-2.0
"""The text of the module that brings a record into a library: LLVM's IR, or C.

TVM compiles it with the kernels, for their target, and treats it as it does them. It holds the
payload as data, where FORMAT.md says, and the functions that return the model hash and the record.
"""

from __future__ import annotations

import enum
import re
from collections.abc import Iterable
from dataclasses import dataclass
from urllib.parse import quote_from_bytes, unquote_to_bytes

from .. import limits
from ..errors import ArtifactError, RecordError
from ..record import RECORD_VERSION, Record

#: The functions' names, as TVM finds them.
HASH_FUNCTION = "get_model_hash"
RECORD_FUNCTION = "get_model_hash_record"
#: The symbol of the payload.
RECORD_SYMBOL = "tvm_model_hash_record"

#: The note in an ELF file, and its section.
NOTE_SECTION = ".note.tvm.model_hash"
NOTE_OWNER = "tvm-model-hash"
NOTE_TYPE = 1
#: The section in the other formats.
MACH_O_SECTION = "__TEXT,__model_hash"
PE_SECTION = ".tvmhash"
WASM_SECTION = "tvm_model_hash"

_HASH_OFFSET = len(f"{RECORD_VERSION} model=sha256:")  # the model's digest is always the first
_HASH_BYTES = 64

# A name keeps what a record's value may hold, but for the sign of the encoding itself.
_KEPT = "".join(chr(c) for c in range(0x21, 0x7F) if chr(c) != "%")


class Engine(enum.Enum):
    """The engine that calls the functions: each has an ABI of its own."""

    RELAY = enum.auto()
    RELAX = enum.auto()


@dataclass(frozen=True)
class Machine:
    """What a module has to say of the machine it is for, in the words of LLVM's IR.

    Parameters
    ----------
    layout : str
        The data layout.
    triple : str
        The target triple.
    target : str
        TVM's description of the target, a string as it stands in the IR.
    """

    layout: str
    triple: str
    target: str

    @classmethod
    def of_ir(cls, text: str) -> Machine:
        """Read it from the IR of any module that TVM has made for the machine.

        Parameters
        ----------
        text : str
            The IR.

        Returns
        -------
        machine : Machine

        Raises
        ------
        ArtifactError
            If the IR does not say it.
        """
        patterns = (
            r'^target datalayout = "(.*)"$',
            r'^target triple = "(.*)"$',
            r'!"tvm_target", !"([^"]*)"',
        )
        found = [re.search(pattern, text, re.MULTILINE) for pattern in patterns]
        for match, pattern in zip(found, patterns, strict=True):
            if match is None:
                raise ArtifactError(f"the LLVM IR of a module of TVM's has no line {pattern!r}")
        return cls(*(match[1] for match in found if match))

    @property
    def pointer(self) -> str:
        """The integer type that is as wide as a pointer."""
        width = re.search(r"(?:^|-)p(?:0)?:([0-9]+)", self.layout)
        return f"i{width[1] if width else 64}"


def payload(record: Record, names: Iterable[str] = ()) -> bytes:
    """Write what a library carries.

    Parameters
    ----------
    record : Record
        The record.
    names : iterable of str
        Names of the tensors that the library needs from a file of parameters.

    Returns
    -------
    payload : bytes
        ASCII, without the byte 0.

    Raises
    ------
    RecordError
        If it gets longer than the limit.
    """
    lines = [str(record), *(quote_from_bytes(name.encode(), _KEPT) for name in names)]
    data = "\n".join(lines).encode("ascii")
    if len(data) > limits.PAYLOAD_BYTES:
        raise RecordError(
            f"the record with the names of {len(lines) - 1} parameters is {len(data)} bytes long, "
            f"more than the limit of {limits.PAYLOAD_BYTES}"
        )
    return data


def names_in(payload: bytes) -> list[str]:
    """Read the names of the tensors in a payload.

    Parameters
    ----------
    payload : bytes
        As :func:`payload` writes it.

    Returns
    -------
    names : list of str
    """
    _, *names = payload.decode("ascii").split("\n")
    return [unquote_to_bytes(name).decode() for name in names]


def llvm_ir(
    payload: bytes, machine: Machine, engine: Engine, system_lib_prefix: str | None = None
) -> str:
    """Write the module as LLVM's IR.

    Parameters
    ----------
    payload : bytes
        As :func:`payload` writes it.
    machine : Machine
        The kernels' machine.
    engine : Engine
        The engine that they are for.
    system_lib_prefix : str, optional
        The prefix of the system library that the kernels are of, which may be empty; None if they
        are of no system library.

    Returns
    -------
    text : str
    """
    prefix = system_lib_prefix or ""
    symbol = f"@{prefix}{RECORD_SYMBOL}"
    windows, apple = "windows" in machine.triple, _is_apple(machine.triple)
    wasm = machine.triple.startswith("wasm")
    elf = not (windows or apple or wasm)
    export = "dllexport " if windows and system_lib_prefix is None else ""
    section = {apple: f', section "{MACH_O_SECTION}"', windows: f', section "{PE_SECTION}"'}.get(
        True, ""
    )
    # Without its name, that of the file it is loaded from would go into the object.
    lines = [
        'source_filename = "tvm_model_hash"',
        f'target datalayout = "{machine.layout}"',
        f'target triple = "{machine.triple}"',
        "",
        f"{symbol} = {export}constant {_bytes(payload + bytes(1))}{section}, align 1",
    ]
    kept = [symbol]
    if elf:
        lines.append(
            f"@tvm_model_hash_note = internal constant {_note(payload)}, section "
            f'"{NOTE_SECTION}", align 4'
        )
        kept.append("@tvm_model_hash_note")
    # In ELF linkers keep notes anyway, and what llvm.used adds for them makes an object one of GNU.
    used = "llvm.compiler.used" if elf else "llvm.used"
    lines.append(
        f"@{used} = appending global [{len(kept)} x ptr] "
        f'[{", ".join(f"ptr {name}" for name in kept)}], section "llvm.metadata"'
    )
    record_bytes = len(payload.partition(b"\n")[0])
    texts = {
        HASH_FUNCTION: payload[_HASH_OFFSET : _HASH_OFFSET + _HASH_BYTES],
        RECORD_FUNCTION: payload[:record_bytes],
    }
    abi = _RelayIR if engine is Engine.RELAY else _RelaxIR
    functions = {abi.symbol(prefix, name): text for name, text in texts.items()}
    lines += abi.declarations(system_lib_prefix, windows)
    for name, text in functions.items():
        lines += abi.function(name, text, export, machine, system_lib_prefix)
    flags = [f'!{{i32 2, !"tvm_target", !"{machine.target}"}}']
    if system_lib_prefix is not None:
        # export_library asks the last of the modules, which may be this one, whether all are a
        # system library; it tells one by the name of the function.
        flags.append(f'!{{i32 1, !"tvm_system_lib_prefix", !"{system_lib_prefix}"}}')
        lines += [f"declare i32 @{abi.REGISTER}(ptr, ptr)"]
        lines += [
            f"@{name}.name = internal constant {_bytes(name.encode() + bytes(1))}"
            for name in functions
        ]
        lines += ["define internal void @__tvm_module_startup() {"]
        lines += [
            f"  call i32 @{abi.REGISTER}(ptr @{name}.name, ptr @{name})" for name in functions
        ]
        lines += [
            "  ret void",
            "}",
            "@llvm.global_ctors = appending global [1 x { i32, ptr, ptr }] "
            "[{ i32, ptr, ptr } { i32 65535, ptr @__tvm_module_startup, ptr null }]",
        ]
    nodes = flags
    lines.append(f"!llvm.module.flags = !{{{', '.join(f'!{i}' for i in range(len(flags)))}}}")
    if wasm:
        lines.append(f"!wasm.custom_sections = !{{!{len(flags)}}}")
        nodes = [*flags, f'!{{!"{WASM_SECTION}", !"{_escaped(payload + bytes(1))}"}}']
    lines += [f"!{i} = {node}" for i, node in enumerate(nodes)]
    return "\n".join(lines) + "\n"


def payload_in_ir(text: str) -> bytes | None:
    """Find the payload in the IR of such a module, which LLVM may have written anew.

    Parameters
    ----------
    text : str
        The IR of any module.

    Returns
    -------
    payload : bytes or None
        None if this is another module.
    """
    match = re.search(
        rf'^@"?[^\s"]*{RECORD_SYMBOL}"? = .*?constant \[[0-9]+ x i8\] c"([^"]*)\\00"',
        text,
        re.MULTILINE,
    )
    if match is None:
        return None
    return re.sub(
        rb"\\(\\|[0-9A-Fa-f]{2})",
        lambda m: m[1] if m[1] == b"\\" else bytes([int(m[1], 16)]),
        match[1].encode("latin-1"),
    )


def _is_apple(triple: str) -> bool:
    return any(word in triple for word in ("apple", "darwin", "macos", "ios"))


def _escaped(data: bytes) -> str:
    return "".join(chr(b) if 0x20 <= b < 0x7F and b not in b'"\\' else f"\\{b:02X}" for b in data)


def _bytes(data: bytes) -> str:
    return f'[{len(data)} x i8] c"{_escaped(data)}"'


def _padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % 4)


def _note(payload: bytes) -> str:
    owner = NOTE_OWNER.encode() + bytes(1)
    numbers = [len(owner), len(payload), NOTE_TYPE]
    parts = [_bytes(_padded(owner)), _bytes(_padded(payload))]
    types = ["i32"] * 3 + [part.partition(" c")[0] for part in parts]
    values = [f"i32 {number}" for number in numbers] + parts
    return f"<{{ {', '.join(types)} }}> <{{ {', '.join(values)} }}>"


class _RelaxIR:
    """Functions by the ABI of TVM 0.25 and later (TVMFFISafeCallType)."""

    REGISTER = "TVMFFIEnvModRegisterSystemLibSymbol"

    @staticmethod
    def symbol(prefix: str, name: str) -> str:
        return f"__tvm_ffi_{prefix}{name}"

    @staticmethod
    def declarations(system_lib_prefix: str | None, windows: bool) -> list[str]:
        return ["declare i32 @TVMFFIStringFromByteArray(ptr, ptr)"]

    @staticmethod
    def function(
        name: str, text: bytes, export: str, machine: Machine, system_lib_prefix: str | None
    ) -> list[str]:
        size = machine.pointer
        return [
            f"@{name}.text = internal constant {_bytes(text + bytes(1))}",
            f"@{name}.bytes = internal constant {{ ptr, {size} }} "
            f"{{ ptr @{name}.text, {size} {len(text)} }}",
            f"define {export}i32 @{name}(ptr %self, ptr %args, i32 %count, ptr %result) {{",
            f"  %error = call i32 @TVMFFIStringFromByteArray(ptr @{name}.bytes, ptr %result)",
            "  ret i32 %error",
            "}",
        ]


class _RelayIR:
    """Functions by the ABI of TVM 0.19 (TVMBackendPackedCFunc).

    By it a function can't return a string of C. It calls runtime.String, which makes one of TVM's.
    """

    REGISTER = "TVMBackendRegisterSystemLibSymbol"
    _MAKER = "runtime.String"
    _STRING_CODE = 11  # kTVMStr

    @staticmethod
    def symbol(prefix: str, name: str) -> str:
        return f"{prefix}{name}"

    @classmethod
    def declarations(cls, system_lib_prefix: str | None, windows: bool) -> list[str]:
        name = _bytes(cls._MAKER.encode() + bytes(1))
        lines = [f"@tvm_model_hash_maker = internal constant {name}"]
        pointers = [f"{system_lib_prefix or ''}__tvm_module_ctx"]
        if system_lib_prefix is None:
            # As in the kernels: the loader puts the addresses of the runtime's functions there,
            # so that a library needs no runtime to be linked.
            pointers += ["__TVMBackendGetFuncFromEnv", "__TVMFuncCall"]
        else:
            lines += [
                "declare i32 @TVMBackendGetFuncFromEnv(ptr, ptr, ptr)",
                "declare i32 @TVMFuncCall(ptr, ptr, ptr, i32, ptr, ptr)",
            ]
        for pointer in pointers:
            lines += [f"${pointer} = comdat any"] * windows
            lines += [f"@{pointer} = weak global ptr null{', comdat' * windows}"]
        return lines

    @classmethod
    def function(
        cls, name: str, text: bytes, export: str, machine: Machine, system_lib_prefix: str | None
    ) -> list[str]:
        get, call = "@TVMBackendGetFuncFromEnv", "@TVMFuncCall"
        loads = []
        if system_lib_prefix is None:
            loads = [
                f"  %get = load ptr, ptr {get.replace('@', '@__')}",
                f"  %call = load ptr, ptr {call.replace('@', '@__')}",
            ]
            get, call = "%get", "%call"
        return [
            f"@{name}.text = internal constant {_bytes(text + bytes(1))}",
            f"define {export}i32 @{name}(ptr %args, ptr %codes, i32 %count, ptr %result, "
            "ptr %code, ptr %resource) {",
            *loads,
            f"  %context = load ptr, ptr @{system_lib_prefix or ''}__tvm_module_ctx",
            "  %maker = alloca ptr",
            "  %value = alloca i64",
            "  %kind = alloca i32",
            f"  %found = call i32 {get}(ptr %context, ptr @tvm_model_hash_maker, ptr %maker)",
            "  %bad = icmp ne i32 %found, 0",
            "  br i1 %bad, label %failed, label %make",
            "failed:",
            "  ret i32 %found",
            "make:",
            "  %function = load ptr, ptr %maker",
            f"  store ptr @{name}.text, ptr %value",
            f"  store i32 {cls._STRING_CODE}, ptr %kind",
            f"  %error = call i32 {call}(ptr %function, ptr %value, ptr %kind, i32 1, "
            "ptr %result, ptr %code)",
            "  ret i32 %error",
            "}",
        ]


# Without a header of TVM's, so that any compiler will do. g++ takes a .c file for C++.
_C_SOURCE = """\
/* Generated by tvm-model-hash: which ONNX model this library was compiled from. */
#include <stddef.h>
#include <stdint.h>

#if defined(_WIN32)
#define EXPORT __declspec(dllexport)
#else
#define EXPORT __attribute__((visibility("default")))
#endif

#if defined(_MSC_VER)
#pragma section("{pe_section}", read)
#define RECORD_SECTION __declspec(allocate("{pe_section}"))
#elif defined(_WIN32)
#define RECORD_SECTION __attribute__((used, section("{pe_section}")))
#elif defined(__APPLE__)
#define RECORD_SECTION __attribute__((used, section("{mach_o_section}")))
#else
#define RECORD_SECTION __attribute__((used))
#endif

#ifdef __cplusplus
extern "C" {{
#endif

EXPORT extern const char {symbol}[];
RECORD_SECTION const char {symbol}[] =
{literals};

#if defined(__ELF__)
static const struct {{
  uint32_t owner_size, payload_size, type;
  char owner[{owner_size}];
  unsigned char payload[{payload_size}];
}} tvm_model_hash_note __attribute__((used, section("{note_section}"), aligned(4))) = {{
    {owner_bytes}, {payload_bytes}, {note_type}, "{owner}", {{{numbers}}}}};
#endif

{functions}
#ifdef __cplusplus
}}
#endif
"""

_C_FUNCTIONS = {
    Engine.RELAX: """\
extern int TVMFFIStringFromByteArray(const void* bytes, void* result);

static int make_string(const char* data, size_t size, void* result) {{
  struct {{
    const char* data;
    size_t size;
  }} bytes;
  bytes.data = data;
  bytes.size = size;
  return TVMFFIStringFromByteArray(&bytes, result);
}}

EXPORT int __tvm_ffi_{hash_function}(void* self, const void* args, int32_t num_args,
                                     void* result) {{
  (void)self, (void)args, (void)num_args;
  return make_string({symbol} + {hash_offset}, {hash_bytes}, result);
}}

EXPORT int __tvm_ffi_{record_function}(void* self, const void* args, int32_t num_args,
                                            void* result) {{
  (void)self, (void)args, (void)num_args;
  return make_string({symbol}, {record_bytes}, result);
}}
""",
    Engine.RELAY: """\
extern int TVMFuncGetGlobal(const char* name, void** result);
extern int TVMFuncCall(void* function, void* values, int* codes, int count, void* result,
                       int* code);
extern int TVMFuncFree(void* function);

typedef struct {{
  const char* data;
  size_t size;
}} Bytes;

static int make_string(const char* data, size_t size, void* result, int* code) {{
  union {{
    int64_t number;
    void* pointer;
  }} value;
  Bytes bytes;
  int kind = 12; /* kTVMBytes */
  void* maker = 0;
  int error = TVMFuncGetGlobal("runtime.String", &maker);
  bytes.data = data;
  bytes.size = size;
  value.pointer = &bytes;
  if (error) return error;
  error = TVMFuncCall(maker, &value, &kind, 1, result, code);
  TVMFuncFree(maker);
  return error;
}}

EXPORT int32_t {hash_function}(void* args, int* codes, int count, void* result, int* code,
                               void* resource) {{
  (void)args, (void)codes, (void)count, (void)resource;
  return make_string({symbol} + {hash_offset}, {hash_bytes}, result, code);
}}

EXPORT int32_t {record_function}(void* args, int* codes, int count, void* result, int* code,
                                      void* resource) {{
  (void)args, (void)codes, (void)count, (void)resource;
  return make_string({symbol}, {record_bytes}, result, code);
}}
""",
}

# What would end the string, or be read as the beginning of another character.
_ESCAPED_IN_C = re.compile(r'(["\\?])')
# Each repeats what has one beginning, so that no text makes it try twice or remember much.
_LITERAL_IN_C = r'\n    "[ !#-\[\]-~]*(?:\\["\\?n][ !#-\[\]-~]*)*"'
_PAYLOAD_IN_C = re.compile(
    rf"^RECORD_SECTION const char {RECORD_SYMBOL}\[\] =((?:{_LITERAL_IN_C})+);$", re.MULTILINE
)


def c_source(payload: bytes, engine: Engine) -> str:
    """Write the module as C, for kernels that are C.

    Parameters
    ----------
    payload : bytes
        As :func:`payload` writes it.
    engine : Engine
        The engine that they are for.

    Returns
    -------
    source : str
        C, and C++ too; ASCII.
    """
    first, *others = _ESCAPED_IN_C.sub(r"\\\1", payload.decode("ascii")).split("\n")
    literals = [f'    "{line}"' for line in [first, *(f"\\n{line}" for line in others)]]
    owner = NOTE_OWNER.encode() + bytes(1)
    functions = _C_FUNCTIONS[engine].format(
        symbol=RECORD_SYMBOL,
        hash_function=HASH_FUNCTION,
        record_function=RECORD_FUNCTION,
        hash_offset=_HASH_OFFSET,
        hash_bytes=_HASH_BYTES,
        record_bytes=len(payload.partition(b"\n")[0]),
    )
    return _C_SOURCE.format(
        pe_section=PE_SECTION,
        mach_o_section=MACH_O_SECTION,
        note_section=NOTE_SECTION,
        symbol=RECORD_SYMBOL,
        literals="\n".join(literals),
        owner=NOTE_OWNER,
        owner_size=len(_padded(owner)),
        payload_size=len(_padded(payload)),
        owner_bytes=len(owner),
        payload_bytes=len(payload),
        note_type=NOTE_TYPE,
        numbers=", ".join(map(str, _padded(payload))),
        functions=functions,
    )


def payload_in_c(text: str) -> bytes | None:
    """Find the payload in such a C source.

    Parameters
    ----------
    text : str
        Any C source.

    Returns
    -------
    payload : bytes or None
        None if this is another source.
    """
    match = _PAYLOAD_IN_C.search(text)
    if match is None:
        return None
    joined = "".join(re.findall(r'^    "(.*)"', match[1], re.MULTILINE))
    text = re.sub(r"\\(.)", lambda m: "\n" if m[1] == "n" else m[1], joined)
    try:
        return text.encode("ascii")
    except UnicodeEncodeError as error:
        raise RecordError(f"the record in a source in C is not ASCII: {error}") from error
