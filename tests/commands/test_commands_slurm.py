"""`tools/slurm_train.sh`: what it starts, and what it does when the time is up; SLURM's own programs are stood in for."""

import os
import re
import signal
import stat
import subprocess
import time

import pytest

PROGRAMS = {
    'scontrol': 'if [ "$1" = show ]; then echo node7; echo node8; else echo "scontrol $*" >>"$LOG"; fi',
    'scancel': 'echo "scancel $*" >>"$LOG"; touch "$LOG.cancelled"',
    'srun': 'echo "$TORCH_ELASTIC_SHUTDOWN_TIMEOUT srun $*" >>"$LOG"; while [ -n "$RUN_LONG" ] && [ ! -e "$LOG.cancelled" ]; do sleep 0.05; done; exit $STATUS',
}


@pytest.fixture
def start(tmp_path, root):
    for name, body in PROGRAMS.items():
        file = tmp_path / name
        file.write_text(f'#!/bin/bash\n{body}\n')
        file.chmod(file.stat().st_mode | stat.S_IXUSR)
    log = tmp_path / 'log'

    def run(*words, run_long='', status=0, **more):
        job = dict(
            SLURM_JOB_NODELIST='node[7-8]', SLURM_JOB_NUM_NODES='2', SLURM_GPUS_ON_NODE='4', SLURM_JOB_ID='41', **more
        )
        path = f'{tmp_path}{os.pathsep}{os.environ["PATH"]}'
        environment = dict(os.environ, PATH=path, LOG=str(log), RUN_LONG=run_long, STATUS=str(status), **job)
        process = subprocess.Popen(
            ['bash', str(root / 'tools/slurm_train.sh'), *words], env=environment, stderr=subprocess.PIPE, text=True
        )
        return process, log

    return run


def finished(process):
    process.communicate(timeout=20)
    return process.returncode


@pytest.mark.parametrize(
    ('job', 'option'), [({}, ''), (dict(SLURM_CPUS_PER_TASK='64'), '--cpus-per-task=64 ')], ids=['', 'cpus']
)
def test_it_starts_one_torchrun_a_node(job, option, start):
    process, log = start('configs/dit/dit_xl2_sd_eq.py', 'seed=3', status=5, **job)
    assert finished(process) == 5
    assert log.read_text() == (
        f'85 srun {option}--kill-on-bad-exit=1 .venv/bin/python -m torch.distributed.run --nnodes=2 --nproc-per-node=4 '
        '--rdzv-backend=c10d --rdzv-endpoint=node7:20041 --rdzv-id=41 '
        'tools/train.py configs/dit/dit_xl2_sd_eq.py seed=3 resume=auto\n'
    )


def test_before_the_time_is_up_it_stops_and_queues_itself_again(start):
    process, log = start('configs/dit/dit_xl2_sd_eq.py', run_long='yes', status=143)
    while not log.exists():
        time.sleep(0.02)
    process.send_signal(signal.SIGUSR1)
    finished(process)
    assert log.read_text().splitlines()[1:] == ['scancel --signal=TERM 41', 'scontrol requeue 41']


def test_its_log_is_written_to_a_folder_of_every_checkout(root):
    """SLURM makes none, and fails the job."""
    (output,) = re.findall(r'^#SBATCH --output=(.+)$', (root / 'tools/slurm_train.sh').read_text(), re.MULTILINE)
    assert '/' not in output


def test_without_a_config_it_says_how(start):
    process, log = start()
    assert process.communicate(timeout=20)[1] == 'usage: sbatch [options] tools/slurm_train.sh CONFIG [key=value ...]\n'
    assert process.returncode == 2
    assert not log.exists()
