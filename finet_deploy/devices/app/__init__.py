"""The Android app on a phone: installed, given files, asked for visits over adb. See `devices/app_device.py`."""
