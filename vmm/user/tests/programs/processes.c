/* Processes: fork, waiting, limits, what /proc says of oneself. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysinfo.h>
#include <sys/times.h>
#include <sys/utsname.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static void report(const char *what, pid_t child)
{
    int status;
    struct rusage usage;
    if (wait4(child, &status, 0, &usage) != child)
        printf("%s: %s\n", what, strerror(errno));
    else
        printf("%s: exited %d with %d\n", what, WIFEXITED(status), WEXITSTATUS(status));
}

int main(int count, char **arguments)
{
    (void)count;
    setvbuf(stdout, NULL, _IONBF, 0);
    pid_t child = fork();
    if (child == 0)
        _exit(getppid() > 1 ? 11 : 12);
    report("forked", child);
    child = vfork();
    if (child == 0)
        _exit(13);
    report("vforked", child);

    char self[4096] = {0};
    readlink("/proc/self/exe", self, sizeof self - 1);
    printf("exe %d\n", strstr(self, "processes") != NULL);
    char *again[] = {"the name", NULL};
    char *variables[] = {"A=1", NULL};
    printf("exec %d %s\n", execve("/nonexistent", again, variables), strerror(errno));
    printf("exec %d %s\n", execve("/etc/passwd", again, variables), strerror(errno));

    FILE *line = fopen("/proc/self/cmdline", "r");
    char text[8192];
    size_t len = fread(text, 1, sizeof text, line);
    printf("command line %d\n", len > 0 && !strcmp(text, arguments[0]));
    FILE *stat = fopen("/proc/self/stat", "r");
    int pid;
    fscanf(stat, "%d %s", &pid, text);
    printf("stat %d %s\n", pid == getpid(), text);
    printf("auxiliary %lu %d %d %s\n", getauxval(AT_PAGESZ), getauxval(AT_ENTRY) != 0,
           getauxval(AT_RANDOM) != 0, strrchr((char *)getauxval(AT_EXECFN), '/'));
    int vector = open("/proc/self/auxv", O_RDONLY);
    unsigned long pairs[64][2];
    ssize_t got = read(vector, pairs, sizeof pairs);
    int page = 0;
    for (ssize_t i = 0; i < got / 16; i++)
        page |= pairs[i][0] == AT_PAGESZ && pairs[i][1] == 4096;
    printf("auxv %d\n", page);
    struct utsname names;
    uname(&names);
    printf("machine %s\n", names.machine);
    struct rlimit limit = {64, 64}, old;
    getrlimit(RLIMIT_NOFILE, &old);
    printf("limit %d", setrlimit(RLIMIT_NOFILE, &(struct rlimit){100, old.rlim_max}));
    getrlimit(RLIMIT_NOFILE, &limit);
    printf(" %ld\n", (long)limit.rlim_cur);
    struct tms times_;
    printf("times %d\n", times(&times_) > 0);
    struct sysinfo info;
    printf("sysinfo %d %d\n", sysinfo(&info), info.totalram > 0 && info.mem_unit > 0);
    prctl(PR_SET_NAME, "short");
    char name[16] = {0};
    prctl(PR_GET_NAME, name);
    printf("name %s\n", name);
    struct timespec before, after, resolution;
    clock_gettime(CLOCK_MONOTONIC, &before);
    usleep(2000);
    clock_gettime(CLOCK_MONOTONIC, &after);
    clock_getres(CLOCK_MONOTONIC, &resolution);
    printf("clock %d %ld\n", (after.tv_sec - before.tv_sec) * 1000000000 + after.tv_nsec - before.tv_nsec >= 2000000,
           resolution.tv_nsec);
    printf("ids %d %d\n", getuid() == geteuid(), getpgrp() == getpgid(0));
    printf("unknown %ld %s\n", syscall(9999), strerror(errno));
    fflush(stdout);
    return 42;
}
