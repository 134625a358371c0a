/* Signals: handlers, frames, masks, stacks, interrupted calls. */
#define _GNU_SOURCE
#include <errno.h>
#include <fenv.h>
#include <poll.h>
#include <setjmp.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <time.h>
#include <ucontext.h>
#include <unistd.h>

static volatile sig_atomic_t count;
static volatile int last_value, last_code;
static sigjmp_buf back;
static char *page;

static void counting(int n) { count += n; }

static void informed(int n, siginfo_t *info, void *context)
{
    (void)n;
    (void)context;
    last_value = info->si_value.sival_int;
    last_code = info->si_code;
    count++;
}

static void faulting(int n, siginfo_t *info, void *context)
{
    ucontext_t *uc = context;
    printf("signal %d code %d offset %ld pc %s\n", n, info->si_code,
           (long)((char *)info->si_addr - page), uc->uc_mcontext.__gregs[0] ? "known" : "zero");
    siglongjmp(back, 1);
}

static void skipping(int n, siginfo_t *info, void *context)
{
    ucontext_t *uc = context;
    (void)info;
    printf("skipping after %d\n", n);
    uc->uc_mcontext.__gregs[0] += 4;
    uc->uc_mcontext.__gregs[10] = 1234;
    uc->uc_mcontext.__fpregs.__d.__f[10] = 0x4045000000000000;
}

static void on_stack(int n)
{
    char here;
    stack_t now;
    sigaltstack(NULL, &now);
    printf("on stack %d: %d flags %d\n", n,
           &here > (char *)now.ss_sp && &here < (char *)now.ss_sp + now.ss_size, now.ss_flags);
}

static void set(int n, void *handler, int flags)
{
    struct sigaction action = {.sa_flags = flags};
    if (flags & SA_SIGINFO)
        action.sa_sigaction = handler;
    else
        action.sa_handler = handler;
    sigaction(n, &action, NULL);
}

static void interrupt(const char *what, int flags)
{
    int pipes[2];
    char byte = 0;
    struct itimerval timer = {.it_value = {0, 30000}};
    set(SIGALRM, counting, flags);
    pipe(pipes);
    pid_t child = fork();
    if (child == 0) {
        usleep(120000);
        write(pipes[1], "x", 1);
        _exit(0);
    }
    setitimer(ITIMER_REAL, &timer, NULL);
    ssize_t got = read(pipes[0], &byte, 1);
    printf("%s: read %zd %s %d\n", what, got, got < 0 ? strerror(errno) : "fine", byte);
    waitpid(child, NULL, 0);
    close(pipes[0]);
    close(pipes[1]);
}

int main(void)
{
    setvbuf(stdout, NULL, _IONBF, 0);
    set(SIGUSR1, counting, 0);
    raise(SIGUSR1);
    printf("raised %d\n", (int)count);

    sigset_t mask, old, pending;
    sigemptyset(&mask);
    sigaddset(&mask, SIGUSR1);
    sigprocmask(SIG_BLOCK, &mask, &old);
    raise(SIGUSR1);
    sigpending(&pending);
    printf("blocked %d pending %d\n", (int)count, sigismember(&pending, SIGUSR1));
    sigset_t none;
    sigemptyset(&none);
    int result = sigsuspend(&none);
    printf("suspended %d %d errno %d\n", result, (int)count, errno == EINTR);
    raise(SIGUSR1);
    siginfo_t info;
    struct timespec brief = {0, 10000000};
    result = sigtimedwait(&mask, &info, &brief);
    printf("waited %d code %d\n", result, info.si_code);
    result = sigtimedwait(&mask, &info, &brief);
    printf("waited again %d %s\n", result, strerror(errno));
    sigprocmask(SIG_SETMASK, &old, NULL);
    printf("handled %d\n", (int)count);

    set(SIGRTMIN + 3, informed, SA_SIGINFO);
    sigaddset(&mask, SIGRTMIN + 3);
    sigprocmask(SIG_BLOCK, &mask, NULL);
    count = 0;
    for (int i = 0; i < 4; i++)
        sigqueue(getpid(), SIGRTMIN + 3, (union sigval){.sival_int = 40 + i});
    sigprocmask(SIG_SETMASK, &old, NULL);
    printf("queued %d value %d code %d\n", (int)count, last_value, last_code);

    page = mmap(NULL, 8192, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    munmap(page + 4096, 4096);
    mprotect(page, 4096, PROT_READ);
    set(SIGSEGV, faulting, SA_SIGINFO);
    set(SIGBUS, faulting, SA_SIGINFO);
    if (!sigsetjmp(back, 1))
        page[5] = 1;
    if (!sigsetjmp(back, 1))
        printf("%d\n", *(volatile int *)(page + 4096));
    if (!sigsetjmp(back, 1))
        *(volatile int *)(page - 0) = 3;
    if (!sigsetjmp(back, 1))
        printf("%d\n", *(volatile int *)(page + 4094));

    set(SIGILL, skipping, SA_SIGINFO);
    register long a0 asm("a0") = 1;
    register double fa0 asm("fa0") = 1.0;
    asm volatile(".4byte 0xffffffff" : "+r"(a0), "+f"(fa0) : : "memory");
    long a0_after = a0;
    double fa0_after = fa0;
    printf("after the illegal instruction %ld %g\n", a0_after, fa0_after);
    set(SIGTRAP, skipping, SA_SIGINFO);
    register long b0 asm("a0") = 1;
    asm volatile(".option push\n.option norvc\nebreak\n.option pop" : "+r"(b0) : : "memory");
    printf("after the breakpoint %ld\n", b0);

    static char stack[65536];
    stack_t alternative = {.ss_sp = stack, .ss_size = sizeof stack};
    sigaltstack(&alternative, NULL);
    set(SIGUSR2, on_stack, SA_ONSTACK);
    raise(SIGUSR2);
    set(SIGUSR2, on_stack, SA_RESETHAND);
    raise(SIGUSR2);
    struct sigaction now;
    sigaction(SIGUSR2, NULL, &now);
    printf("reset %d\n", now.sa_handler == SIG_DFL);

    interrupt("not restarted", 0);
    interrupt("restarted", SA_RESTART);

    struct itimerval timer = {.it_value = {0, 20000}};
    setitimer(ITIMER_REAL, &timer, NULL);
    result = poll(NULL, 0, 2000);
    printf("poll %d %s\n", result, strerror(errno));
    setitimer(ITIMER_REAL, &timer, NULL);
    struct timespec second = {2, 0}, rest;
    result = nanosleep(&second, &rest);
    printf("sleep %d %s rest %d\n", result, strerror(errno), rest.tv_sec == 1);

    /* A loop without system calls is interrupted. */
    count = 0;
    set(SIGALRM, counting, 0);
    setitimer(ITIMER_REAL, &timer, NULL);
    while (!count)
        ;
    printf("interrupted a loop\n");

    /* Floating-point state survives a handler. */
    fesetround(FE_UPWARD);
    volatile double third = 1.0 / 3.0;
    raise(SIGUSR1);
    printf("rounding %d third %.20f\n", fegetround() == FE_UPWARD, third);

    for (int kind = 0; kind < 5; kind++) {
        pid_t child = fork();
        if (child == 0) {
            signal(SIGSEGV, SIG_DFL);
            signal(SIGILL, SIG_DFL);
            close(2);
            switch (kind) {
            case 0: *(volatile int *)8 = 1; break;
            case 1: asm volatile(".4byte 0xffffffff"); break;
            case 2: abort();
            case 3: kill(getpid(), SIGTERM); break;
            case 4: raise(SIGKILL); break;
            }
            _exit(99);
        }
        int status;
        waitpid(child, &status, 0);
        printf("child %d: signalled %d by %d\n", kind, WIFSIGNALED(status), WTERMSIG(status));
    }
    return 0;
}
