# Activates this environment in bash or zsh: `source environment/bin/activate`. `deactivate` undoes it.
if [ -n "${BASH_SOURCE:-}" ]; then
    _cpack_at=$BASH_SOURCE
elif [ -n "${ZSH_VERSION:-}" ]; then
    eval '_cpack_at=${(%):-%x}'
else
    echo "activate: source it from bash or zsh" >&2
    return 1
fi
export CONDA_PREFIX="$(cd -- "$(dirname -- "$_cpack_at")/.." && pwd)"
unset _cpack_at
export CONDA_SHLVL=1 CONDA_DEFAULT_ENV="$CONDA_PREFIX" _CPACK_PATH="$PATH" PATH="$CONDA_PREFIX/bin:$PATH"
@VARIABLES@
if [ -d "$CONDA_PREFIX/etc/conda/activate.d" ]; then
    for _cpack_script in $(ls "$CONDA_PREFIX/etc/conda/activate.d" | grep '\.sh$'); do
        . "$CONDA_PREFIX/etc/conda/activate.d/$_cpack_script"
    done
fi
unset _cpack_script
deactivate() {
    if [ -d "$CONDA_PREFIX/etc/conda/deactivate.d" ]; then
        for _cpack_script in $(ls -r "$CONDA_PREFIX/etc/conda/deactivate.d" | grep '\.sh$'); do
            . "$CONDA_PREFIX/etc/conda/deactivate.d/$_cpack_script"
        done
    fi
    export PATH="$_CPACK_PATH"
    unset _cpack_script _CPACK_PATH CONDA_PREFIX CONDA_SHLVL CONDA_DEFAULT_ENV@NAMES@
    unset -f deactivate
    hash -r 2>/dev/null
}
hash -r 2>/dev/null
