# SPDX-License-Identifier: Apache-2.0
# What type checkers see of the names that __init__.py imports when they are first used.

from .activation import install as install
from .activation import is_installed as is_installed
from .activation import uninstall as uninstall
from .artifact.carrier import Artifact as Artifact
from .artifact.record_io import read_artifact as read_artifact
from .artifact.record_io import read_interface as read_interface
from .artifact.record_io import read_record as read_record
from .artifact.record_io import write_record as write_record
from .checking.attestation import attest as attest
from .checking.manifest import Seal as Seal
from .checking.manifest import seal as seal
from .checking.manifest import verify_seal as verify_seal
from .checking.tagging import Tagged as Tagged
from .checking.tagging import tag as tag
from .checking.verdict import ModelHashMismatch as ModelHashMismatch
from .checking.verdict import Status as Status
from .checking.verdict import Verdict as Verdict
from .checking.verdict import check as check
from .checking.verdict import check_consistent as check_consistent
from .errors import ArtifactError as ArtifactError
from .errors import AttestationError as AttestationError
from .errors import BrokenSealError as BrokenSealError
from .errors import BuildMismatchError as BuildMismatchError
from .errors import DeviceError as DeviceError
from .errors import DuplicateRecordError as DuplicateRecordError
from .errors import ExternalDataError as ExternalDataError
from .errors import FixedRecordError as FixedRecordError
from .errors import HashConflictError as HashConflictError
from .errors import InvalidHashError as InvalidHashError
from .errors import InvalidModelError as InvalidModelError
from .errors import ModelFileError as ModelFileError
from .errors import ModelHashError as ModelHashError
from .errors import ModelHashWarning as ModelHashWarning
from .errors import ModelSerializationError as ModelSerializationError
from .errors import ModelTypeError as ModelTypeError
from .errors import NoHashError as NoHashError
from .errors import OutputError as OutputError
from .errors import RecordError as RecordError
from .errors import RemoteError as RemoteError
from .errors import RequirementError as RequirementError
from .errors import SealError as SealError
from .errors import UnknownArtifactError as UnknownArtifactError
from .errors import UnloadableArtifactError as UnloadableArtifactError
from .errors import UnsupportedTVMError as UnsupportedTVMError
from .files import downloading as downloading
from .model.difference import explain as explain
from .model.digest import model_hash as model_hash
from .model.digest import model_record as model_record
from .record import Record as Record

__version__: str
