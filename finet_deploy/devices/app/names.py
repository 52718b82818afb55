"""The app's names on a phone, as its manifest has them."""

from __future__ import annotations

__all__ = ["APP_FILES", "APP_FOLDER", "APP_RUNTIMES", "PACKAGE", "PROCESS", "SERVICE"]

PACKAGE = "org.finetdeploy.app"
SERVICE = f"{PACKAGE}/.VisitService"
PROCESS = f"{PACKAGE}:visit"  # android:process=":visit"
APP_FOLDER = f"/sdcard/Android/data/{PACKAGE}"
APP_FILES = f"{APP_FOLDER}/files"  # Context.getExternalFilesDir(null)
APP_RUNTIMES = ("executorch", "onnxruntime", "torch_mobile")
