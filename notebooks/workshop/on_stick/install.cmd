@echo off
rem Installs the course from this folder, without a network. "install.cmd --help" lists the options.
cd /d "%~dp0"
py -3 --version >nul 2>nul
if not errorlevel 1 (
    py -3 install.py %*
    goto done
)
python --version >nul 2>nul
if not errorlevel 1 (
    python install.py %*
    goto done
)
echo No Python was found. Install one: from the folder python of this stick if it has one, or from python.org.
cmd /c exit 1
:done
set status=%errorlevel%
pause
exit /b %status%
