from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class HelloRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class HelloReply(_message.Message):
    __slots__ = ("site", "identity")
    SITE_FIELD_NUMBER: _ClassVar[int]
    IDENTITY_FIELD_NUMBER: _ClassVar[int]
    site: str
    identity: bytes
    def __init__(self, site: _Optional[str] = ..., identity: _Optional[bytes] = ...) -> None: ...

class Question(_message.Message):
    __slots__ = ("site", "run", "question")
    SITE_FIELD_NUMBER: _ClassVar[int]
    RUN_FIELD_NUMBER: _ClassVar[int]
    QUESTION_FIELD_NUMBER: _ClassVar[int]
    site: str
    run: str
    question: str
    def __init__(self, site: _Optional[str] = ..., run: _Optional[str] = ..., question: _Optional[str] = ...) -> None: ...

class Invitation(_message.Message):
    __slots__ = ("question", "terms", "stated")
    QUESTION_FIELD_NUMBER: _ClassVar[int]
    TERMS_FIELD_NUMBER: _ClassVar[int]
    STATED_FIELD_NUMBER: _ClassVar[int]
    question: Question
    terms: str
    stated: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, question: _Optional[_Union[Question, _Mapping]] = ..., terms: _Optional[str] = ..., stated: _Optional[_Iterable[str]] = ...) -> None: ...

class Step(_message.Message):
    __slots__ = ("site", "run", "parts")
    SITE_FIELD_NUMBER: _ClassVar[int]
    RUN_FIELD_NUMBER: _ClassVar[int]
    PARTS_FIELD_NUMBER: _ClassVar[int]
    site: str
    run: str
    parts: _containers.RepeatedScalarFieldContainer[bytes]
    def __init__(self, site: _Optional[str] = ..., run: _Optional[str] = ..., parts: _Optional[_Iterable[bytes]] = ...) -> None: ...

class Answer(_message.Message):
    __slots__ = ("status", "message")
    STATUS_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    status: str
    message: bytes
    def __init__(self, status: _Optional[str] = ..., message: _Optional[bytes] = ...) -> None: ...

class StatusRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class StatusReply(_message.Message):
    __slots__ = ("site", "population", "busy", "rounds", "started")
    SITE_FIELD_NUMBER: _ClassVar[int]
    POPULATION_FIELD_NUMBER: _ClassVar[int]
    BUSY_FIELD_NUMBER: _ClassVar[int]
    ROUNDS_FIELD_NUMBER: _ClassVar[int]
    STARTED_FIELD_NUMBER: _ClassVar[int]
    site: str
    population: str
    busy: str
    rounds: _containers.RepeatedScalarFieldContainer[str]
    started: float
    def __init__(self, site: _Optional[str] = ..., population: _Optional[str] = ..., busy: _Optional[str] = ..., rounds: _Optional[_Iterable[str]] = ..., started: _Optional[float] = ...) -> None: ...

class Scoring(_message.Message):
    __slots__ = ("question", "student")
    QUESTION_FIELD_NUMBER: _ClassVar[int]
    STUDENT_FIELD_NUMBER: _ClassVar[int]
    question: Question
    student: bytes
    def __init__(self, question: _Optional[_Union[Question, _Mapping]] = ..., student: _Optional[bytes] = ...) -> None: ...
