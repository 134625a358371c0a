/* Children that the parent waits for, and ways to make them that the reference does not have. */
#define _GNU_SOURCE
#include <errno.h>
#include <linux/sched.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static void handler(int number)
{
    (void)number;
}

static long now(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return time.tv_sec * 1000 + time.tv_nsec / 1000000;
}

int main(void)
{
    int status;
    long before = now();
    pid_t child = vfork();
    if (child == 0) {
        struct timespec pause = {0, 200000000};
        nanosleep(&pause, NULL);
        _exit(4);
    }
    printf("vfork waits %d\n", now() - before >= 200);
    waitpid(child, &status, 0);
    printf("vforked %d\n", WEXITSTATUS(status));

    signal(SIGUSR1, handler);
    signal(SIGUSR2, SIG_IGN);
    struct clone_args arguments = {.flags = 1ULL << 32, .exit_signal = SIGCHLD};
    fflush(stdout);
    child = syscall(SYS_clone3, &arguments, sizeof arguments);
    if (child == 0) {
        struct sigaction one, two;
        sigaction(SIGUSR1, NULL, &one);
        sigaction(SIGUSR2, NULL, &two);
        _exit((one.sa_handler == SIG_DFL) + 2 * (two.sa_handler == SIG_IGN));
    }
    waitpid(child, &status, 0);
    printf("clone3 %d %d\n", WIFEXITED(status), WEXITSTATUS(status));
    struct {
        struct clone_args known;
        uint64_t later;
    } larger = {.known = {.exit_signal = SIGCHLD}, .later = 1};
    long result = syscall(SYS_clone3, &larger, sizeof larger);
    printf("unknown arguments %ld %s\n", result, strerror(errno));
    result = syscall(SYS_clone3, &arguments, 8);
    printf("too few %ld %s\n", result, strerror(errno));
    result = syscall(425, 8, &larger);
    printf("io_uring %ld %s\n", result, strerror(errno));
    return 0;
}
